"""A new workspace from templates. Imports params and curation."""
