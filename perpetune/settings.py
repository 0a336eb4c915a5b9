"""Addresses and secrets from environment variables, read when used (never at import)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Addresses, secrets and folders of a deployment.

    Each field is the environment variable of the same name with the prefix `PERPETUNE_`, except those that MLflow and
    Prefect name. If an address is not set, `perpetune up` starts the service on this machine.
    """

    model_config = SettingsConfigDict(env_prefix="PERPETUNE_", frozen=True, populate_by_name=True)

    home: Path = Field(default=Path(".perpetune"), description="databases, artifacts and caches of this workspace")
    mlflow_tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    prefect_api_url: str | None = Field(default=None, validation_alias="PREFECT_API_URL")
    mlflow_ui_url: str | None = Field(default=None, description="MLflow's UI, if it is not at the tracking URI")
    prefect_ui_url: str | None = Field(default=None, validation_alias="PREFECT_UI_URL")
    database_url: str | None = None
    dvc_remote: str | None = None
    gateway_url: str | None = None
    vllm_url: str | None = Field(default=None, description="the vLLM server used if serve.engine is vllm")
    vllm_api_key: SecretStr | None = Field(default=None, description="the vLLM server's API key")
    remote_api_key: SecretStr | None = Field(default=None, description="the API key of the server of serve.first")
    vllm_python: Path | None = Field(default=None, description="a Python with vLLM, if it is not .venv-vllm's")
    vllm_args: str = Field(default="", description="extra arguments for the vLLM server that `perpetune up` starts")
    api_key: SecretStr | None = Field(
        default=None, description="the gateway's API key (role admin) for perpetune itself"
    )
    training_launcher: str | None = Field(
        default=None,
        description="command that starts distributed training, such as `torchrun --nnodes 2 ...`; see docs/clusters.md",
    )
    assets: Path = Field(
        default_factory=lambda: _assets(), description="folder of the wheels of assets.lock, downloaded by `make setup`"
    )

    @property
    def prediction_log(self) -> str:
        """The SQLAlchemy URL of the prediction log."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'predictions.db'}"

    @property
    def gateway_headers(self) -> dict[str, str]:
        """Headers of perpetune's own requests to the gateway; {} without a key."""
        key = self.api_key.get_secret_value().strip() if self.api_key else ""
        return {"authorization": f"Bearer {key}"} if key else {}


def _assets() -> Path:
    """`assets` in the current folder if it exists, otherwise that of the checkout that this package comes from."""
    here, checkout = Path("assets"), Path(__file__).parents[1] / "assets"
    return checkout if checkout.is_dir() and not here.exists() else here
