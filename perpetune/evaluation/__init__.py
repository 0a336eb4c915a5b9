"""From answers to scores, comparisons and costs. Imports statistics, policy and models; no torch, no MLflow."""
