"""Step 3, evaluate: every system answers the same held-out rows. Imports evaluation and inference."""
