"""How `repair` finds and repairs damaged texts."""
