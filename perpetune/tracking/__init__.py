"""MLflow: runs, registry and the logged model. The only package that imports MLflow."""
