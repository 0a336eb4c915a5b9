"""What every route reads of an HTTP request."""
