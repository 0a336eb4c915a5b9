"""Evaluation: scores, comparisons and costs of answers. Imports statistics, policy and models; no torch, no MLflow."""
