"""Answering with a fine-tuned model: the same code evaluates it and serves it."""
