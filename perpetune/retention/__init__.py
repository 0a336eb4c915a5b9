"""What may be deleted because it is old or can be made again."""
