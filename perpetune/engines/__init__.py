"""What answers a request: in process, vLLM, a linear model, a remote one. Imports model, classifiers and generation."""
