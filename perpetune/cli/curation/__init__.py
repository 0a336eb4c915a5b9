"""Commands for rows: in, out, labels and versions of the data."""
