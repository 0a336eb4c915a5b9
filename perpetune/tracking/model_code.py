"""The code that MLflow stores with a version ("models from code"): only an import, so that the package may change."""

import mlflow

from perpetune.tracking.logged_model import VersionModel

mlflow.models.set_model(VersionModel())
