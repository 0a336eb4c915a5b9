"""Step 3: every system answers the same held-out rows. Imports evaluation and inference."""
