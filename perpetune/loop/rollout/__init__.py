"""Step 5, release: deploy, trial, manual promotion, rollback. Imports policy, tracking and runtime."""
