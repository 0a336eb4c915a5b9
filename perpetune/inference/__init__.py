"""Answers and label probabilities of a model in memory. Imports model, classifiers and generation; no MLflow."""
