"""A workspace: the folder with params.yaml, dvc.yaml, data/ and .perpetune/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from perpetune.errors import PerpetuneError
from perpetune.params import Params, load_params
from perpetune.settings import Settings


@dataclass(frozen=True)
class Workspace:
    root: Path
    params: Params
    settings: Settings

    @property
    def home(self) -> Path:
        """The folder of databases, artifacts and caches; not committed."""
        return self.root / self.settings.home

    @property
    def assets(self) -> Path:
        """The folder of the wheels of assets.lock and the models converted from them."""
        return self.root / self.settings.assets

    @property
    def data(self) -> Path:
        return self.root / "data"

    def split(self, name: str) -> Path:
        return self.data / "splits" / f"{name}.jsonl"

    def run_folder(self, run_id: str) -> Path:
        """The scratch folder of one MLflow run; created if missing."""
        folder = self.home / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def curve(self, run_id: str) -> Path:
        """The file of the training curve of a run; missing or empty before the first step."""
        return self.home / "runs" / run_id / "curve.jsonl"

    def has_run_folder(self, run_id: str) -> bool:
        """Whether this MLflow run was started in this workspace."""
        return (self.home / "runs" / run_id).is_dir()


def open_workspace(root: Path | None = None) -> Workspace:
    """The workspace at `root`, or in the current folder.

    Raises PerpetuneError if params.yaml is missing or invalid, or an environment variable is.
    """
    folder = (root or Path.cwd()).absolute()
    return Workspace(folder, load_params(folder / "params.yaml"), _settings())


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as fault:
        first = fault.errors()[0]
        variable = ".".join(map(str, first["loc"]))
        raise PerpetuneError(first["msg"], where=variable, do="correct this environment variable") from None
