"""A version trained again from its record, and compared with what was recorded."""
