"""MLflow: runs, registry and the logged model. The only part that imports MLflow."""
