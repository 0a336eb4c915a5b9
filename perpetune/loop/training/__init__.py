"""Step 2, fine-tune."""
