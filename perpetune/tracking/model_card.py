"""The model card of a registered version, without the rest of its files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.exceptions import MlflowException

from perpetune.errors import PerpetuneError
from perpetune.model.release import CARD, ModelCard, read_card


def fetch_card(task: str, version: str) -> ModelCard | None:
    """Download the card of a version, a few KB; None if it has none. Raises PerpetuneError if MLflow fails."""
    version_uri = f"models:/{task}/{version}"
    try:
        folders = mlflow.artifacts.list_artifacts(artifact_uri=f"{version_uri}/artifacts")
        with TemporaryDirectory() as here:
            for folder in folders:
                # MLflow names the folder after the one that was logged.
                uri = f"{version_uri}/artifacts/{Path(folder.path).name}/{CARD}"
                return read_card(Path(mlflow.artifacts.download_artifacts(uri, dst_path=here)).parent)
    except (MlflowException, OSError) as fault:
        raise PerpetuneError(
            f"could not read the model card of version {version} of {task} in MLflow: {fault}",
            do="check that MLflow and its artifacts can be reached",
        ) from fault
    return None
