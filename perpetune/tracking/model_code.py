"""What MLflow stores with a version ("models from code"): no more than what to import, so that the package may change."""

import mlflow

from perpetune.tracking.logged_model import VersionModel

mlflow.models.set_model(VersionModel())
