"""The story of a version: what is on record of it, told to a person."""
