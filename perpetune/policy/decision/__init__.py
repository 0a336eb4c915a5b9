"""The decision record, its headline, and the next steps. Imports policy."""
