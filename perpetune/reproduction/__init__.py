"""A version trained again from its record, and compared. Imports training and tracking."""
