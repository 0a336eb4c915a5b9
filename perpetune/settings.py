"""Addresses and secrets from environment variables, read when used (never at import)."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Addresses, secrets and folders of a deployment.

    Each field is the environment variable of the same name with the prefix `PERPETUNE_`, except those that MLflow and
    Prefect name. If an address is not set, `perpetune up` starts the service on this machine.
    """

    model_config = SettingsConfigDict(env_prefix="PERPETUNE_", frozen=True, populate_by_name=True)

    home: Path = Field(default=Path(".perpetune"), description="Databases, artifacts and caches of this workspace.")
    mlflow_tracking_uri: str | None = Field(
        default=None,
        validation_alias="MLFLOW_TRACKING_URI",
        description="An MLflow server that runs elsewhere; unset, `perpetune up` starts one.",
    )
    prefect_api_url: str | None = Field(
        default=None,
        validation_alias="PREFECT_API_URL",
        description="A Prefect server that runs elsewhere; unset, `perpetune up` starts one.",
    )
    mlflow_ui_url: str | None = Field(
        default=None, description="Where people open MLflow's pages, if not at the tracking URI."
    )
    prefect_api_key: SecretStr | None = Field(
        default=None, validation_alias="PREFECT_API_KEY", description="The key that Prefect Cloud asks for."
    )
    prefect_api_auth_string: SecretStr | None = Field(
        default=None,
        validation_alias="PREFECT_API_AUTH_STRING",
        description="User and password, as `admin:secret`, that a self-hosted Prefect server asks for.",
    )
    prefect_client_custom_headers: str = Field(
        default="",
        validation_alias="PREFECT_CLIENT_CUSTOM_HEADERS",
        description="A JSON object of more headers of every request to Prefect, such as those of a proxy in front of it.",
    )
    prefect_ui_url: str | None = Field(
        default=None,
        validation_alias="PREFECT_UI_URL",
        description="Where people open Prefect's pages, if not at the API's address.",
    )
    database_url: str | None = Field(
        default=None,
        description="The prediction log as an SQLAlchemy URL: PostgreSQL in production; unset, a SQLite file in the home.",
    )
    dvc_remote: str | None = Field(
        default=None, description="Any DVC remote, such as `s3://bucket/path`; unset, a local folder."
    )
    gateway_url: str | None = Field(
        default=None, description="A gateway that runs elsewhere; unset, `perpetune up` starts one."
    )
    workspace_id: str | None = Field(
        default=None,
        description="What the services of one workspace know each other by; `perpetune up` sets it. A gateway that has one refuses a release that carries another.",
    )
    vllm_url: str | None = Field(
        default=None,
        description="The vLLM server behind `serve.engine: vllm`, or several with commas between, which all get every adapter; unset, `perpetune up` starts one. See docs/guides/vllm.md.",
    )
    vllm_api_key: SecretStr | None = Field(
        default=None, description="The key that the vLLM server asks for (`--api-key`)."
    )
    vllm_ca: Path | None = Field(
        default=None,
        description="A PEM file of the CA that signed the certificate of the vLLM server (https://); unset, the system's CAs are trusted.",
    )
    vllm_client_certificate: Path | None = Field(
        default=None, description="The certificate (PEM) that we show to vLLM, which may ask for one (mutual TLS)."
    )
    vllm_client_key: Path | None = Field(
        default=None, description="The certificate's private key (PEM, unencrypted), if it is not in the same file."
    )
    remote_api_key: SecretStr | None = Field(
        default=None, description="The key that the server of `serve.initial_model` asks for."
    )
    remote_ca: Path | None = Field(
        default=None, description="As `PERPETUNE_VLLM_CA`, of remote models and of the models of labelling rules."
    )
    remote_client_certificate: Path | None = Field(
        default=None, description="As `PERPETUNE_VLLM_CLIENT_CERTIFICATE`, of the same models."
    )
    remote_client_key: Path | None = Field(
        default=None, description="As `PERPETUNE_VLLM_CLIENT_KEY`, of the same models."
    )
    label_studio_url: str | None = Field(
        default=None,
        validation_alias="LABEL_STUDIO_URL",
        description="The Label Studio of `perpetune annotate`, such as `http://127.0.0.1:8080`.",
    )
    label_studio_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="LABEL_STUDIO_API_KEY",
        description="A personal access token, or a legacy token, of a user of that Label Studio.",
    )
    alerts: SecretStr | None = Field(
        default=None,
        description="Where alerts go: Apprise URLs, such as `mailtos://USER:PASSWORD@example.org`, or names of Prefect's notification blocks, such as `slack-webhook/ops`, with spaces between.",
    )
    vllm_python: Path | None = Field(default=None, description="A Python with vLLM, if not `.venv-vllm/bin/python`.")
    vllm_args: str = Field(default="", description="More arguments for the vLLM that `perpetune up` starts.")
    api_key: SecretStr | None = Field(
        default=None, description="The key, of role admin, that perpetune's own calls of the gateway carry."
    )
    training_launcher: str | None = Field(
        default=None,
        description="A command that starts training on several machines. See docs/guides/gpus.md.",
    )
    assets: Path = Field(
        default_factory=lambda: _assets(),
        description="The folder of the wheels with models and reviews; unset, `assets` of this folder or of the checkout, else `perpetune/assets` in the user's cache.",
    )

    @field_validator("prefect_client_custom_headers")
    @classmethod
    def _is_object_of_strings(cls, text: str) -> str:
        headers = json.loads(text) if text else {}
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            raise ValueError("PREFECT_CLIENT_CUSTOM_HEADERS is a JSON object of strings")
        return text

    @property
    def prefect_user_and_password(self) -> str | None:
        """What Prefect's server asks for; the variable of the server does for its clients too."""
        named = self.prefect_api_auth_string
        return named.get_secret_value() if named else os.environ.get("PREFECT_SERVER_API_AUTH_STRING")

    @property
    def prefect_headers(self) -> dict[str, str]:
        """Headers of perpetune's own requests to Prefect: those that Prefect's client sends with these settings."""
        headers = dict(json.loads(self.prefect_client_custom_headers or "{}"))
        if pair := self.prefect_user_and_password:
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif self.prefect_api_key:
            headers["authorization"] = f"Bearer {self.prefect_api_key.get_secret_value()}"
        return headers

    @property
    def vllm_urls(self) -> tuple[str, ...]:
        """The vLLM servers, replicas of each other."""
        return tuple(url.strip() for url in (self.vllm_url or "").split(",") if url.strip())

    @property
    def prediction_log(self) -> str:
        """The SQLAlchemy URL of the prediction log."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'predictions.db'}"

    @property
    def gateway_headers(self) -> dict[str, str]:
        """Headers of perpetune's own requests to the gateway; {} without a key."""
        key = self.api_key.get_secret_value().strip() if self.api_key else ""
        return {"authorization": f"Bearer {key}"} if key else {}


def checkout() -> Path | None:
    """The repository that this code lies in; None if it was installed from a wheel."""
    root = Path(__file__).parents[1]
    return root if (root / "pyproject.toml").is_file() else None


def _assets() -> Path:
    """`assets` in the current folder if it exists, else in the checkout, else in the user's cache."""
    here, root = Path("assets"), checkout()
    if here.exists():
        return here
    return root / "assets" if root else _user_cache() / "perpetune" / "assets"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
