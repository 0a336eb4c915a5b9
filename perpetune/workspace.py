"""The folder a person works in: params.yaml, dvc.yaml, data/ and .perpetune/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perpetune.params import Params, load_params
from perpetune.settings import Settings


@dataclass(frozen=True)
class Workspace:
    root: Path
    params: Params
    settings: Settings

    @property
    def home(self) -> Path:
        """Databases, artifacts and caches; never committed."""
        return self.root / self.settings.home

    @property
    def assets(self) -> Path:
        """The wheels of assets.lock and the models converted from them."""
        return self.root / self.settings.assets

    @property
    def data(self) -> Path:
        return self.root / "data"

    def split(self, name: str) -> Path:
        return self.data / "splits" / f"{name}.jsonl"

    def run_folder(self, run_id: str) -> Path:
        """Scratch files of one pass through the loop."""
        folder = self.home / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def curve(self, run_id: str) -> Path:
        """The steps that a pass has trained; missing or empty before the first."""
        return self.home / "runs" / run_id / "curve.jsonl"

    def has_run_folder(self, run_id: str) -> bool:
        """Whether a pass that writes to this MLflow run began here."""
        return (self.home / "runs" / run_id).is_dir()


def open_workspace(root: Path | None = None) -> Workspace:
    """The workspace at `root`, or where this process runs.

    Raises PerpetuneError where params.yaml is missing or wrong.
    """
    folder = (root or Path.cwd()).absolute()
    return Workspace(folder, load_params(folder / "params.yaml"), Settings())
