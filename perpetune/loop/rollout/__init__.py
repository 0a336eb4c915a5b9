"""Step 5 and its ways back: deploy, trial, promotion, rollback. Imports policy, tracking and runtime."""
