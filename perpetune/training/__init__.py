"""Fine-tuning, also on a bare GPU machine: torch, transformers and peft. Imports model, classifiers and statistics."""
