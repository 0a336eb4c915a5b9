"""The page of an evaluation: plots, mistakes, summary. Imports evaluation and statistics."""
