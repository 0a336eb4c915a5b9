"""Addresses and secrets, read from the environment when asked for (never at import)."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the services are.

    Each field is the environment variable of the same name with the prefix `PERPETUNE_`, save those
    that MLflow and Prefect name themselves. Unset addresses mean "start one on this machine".
    """

    model_config = SettingsConfigDict(env_prefix="PERPETUNE_", frozen=True, populate_by_name=True)

    home: Path = Field(default=Path(".perpetune"), description="databases, artifacts and caches of this workspace")
    mlflow_tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    prefect_api_url: str | None = Field(default=None, validation_alias="PREFECT_API_URL")
    mlflow_ui_url: str | None = Field(default=None, description="what people open, where it is not the tracking URI")
    prefect_ui_url: str | None = Field(default=None, validation_alias="PREFECT_UI_URL")
    database_url: str | None = None
    dvc_remote: str | None = None
    gateway_url: str | None = None
    vllm_url: str | None = Field(default=None, description="the vLLM server that answers with serve.engine: vllm")
    vllm_api_key: SecretStr | None = Field(default=None, description="the key that the vLLM server asks for")
    remote_api_key: SecretStr | None = Field(
        default=None, description="the key that the server of serve.initial_model asks for"
    )
    vllm_python: Path | None = Field(
        default=None, description="a Python that has vLLM, if it is not that of `make vllm`"
    )
    vllm_args: str = Field(default="", description="more arguments for the vLLM that `perpetune up` starts")
    api_key: SecretStr | None = Field(default=None, description="the gateway's key for our own calls: role admin")
    training_launcher: str | None = Field(
        default=None,
        description="starts training on a cluster, such as `torchrun --nnodes 2 ...`; see docs/clusters.md",
    )
    assets: Path = Field(
        default_factory=lambda: _assets(),
        description="the wheels that carry models and reviews; unset: `assets` of the workspace or of the checkout, else "
        "`perpetune/assets` in the cache of the user",
    )

    @property
    def prediction_log(self) -> str:
        """The SQLAlchemy URL of the prediction log."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'predictions.db'}"

    @property
    def gateway_headers(self) -> dict[str, str]:
        """What our own calls of the gateway carry."""
        key = self.api_key.get_secret_value().strip() if self.api_key else ""
        return {"authorization": f"Bearer {key}"} if key else {}


def checkout() -> Path | None:
    """The repository that this code lies in; None if it was installed from a wheel."""
    root = Path(__file__).parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def _assets() -> Path:
    """Of the folder that a person works in, else of the checkout, else of the user: each wheel is fetched once."""
    here, root = Path("assets"), checkout()
    if here.exists():
        return here
    return root / "assets" if root else _user_cache() / "perpetune" / "assets"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
