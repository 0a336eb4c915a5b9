"""Rows that say nearly the same: found for grouping before the split. Imports only the texts of `curation`."""
