"""The data card: what it says, one concept a file; its two pages, and its pictures."""
