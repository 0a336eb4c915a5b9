"""The whole state of a workspace in one place, and back: see docs/decisions/0042."""
