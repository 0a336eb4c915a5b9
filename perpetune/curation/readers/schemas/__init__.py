"""What the columns of a record mean: one module a schema, each from a record to our own fields, whatever the file format."""
