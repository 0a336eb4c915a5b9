"""How good one answer is, from 0 to 1. Imports statistics."""
