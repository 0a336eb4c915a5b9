from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from perpetune.explain.status import Status, show_status, without_temporary
from perpetune.params import load_params
from perpetune.runtime.addresses import LOCK_FILE
from perpetune.runtime.file_locks import acquire
from perpetune.runtime.up import is_lasting
from perpetune.settings import Settings
from perpetune.workspace import Workspace

ROOT = Path(__file__).parents[3]
NEW = Status(
    task="shop",
    serving=None,
    versions=(),
    last_check=None,
    predictions=0,
    labelled=0,
    open_label_requests=0,
    addresses={"MLflow": "http://127.0.0.1:58835/#/experiments", "Prefect": "http://127.0.0.1:37167"},
)


def shown(status: Status) -> list[str]:
    text = StringIO()
    show_status(status, Console(file=text, width=120))
    return text.getvalue().splitlines()


def test_without_versions_there_is_no_table() -> None:
    assert shown(NEW)[:2] == ["shop: no version is serving", "log: 0 predictions, 0 labelled"]


def test_an_address_that_ends_with_the_command_is_not_shown() -> None:
    assert "MLflow: http://127.0.0.1:58835/#/experiments" in shown(NEW)
    assert shown(without_temporary(NEW))[-2:] == ["MLflow: not running", "Prefect: not running"]


def test_a_server_is_lasting_if_it_runs_elsewhere_or_under_perpetune_up(tmp_path: Path) -> None:
    def workspace(uri: str | None) -> Workspace:
        return Workspace(tmp_path, load_params(ROOT / "params.yaml"), Settings(mlflow_tracking_uri=uri))

    assert is_lasting(workspace("http://mlflow.example.org"))
    here = workspace(None)
    assert not is_lasting(here)
    here.home.mkdir(exist_ok=True)
    held = acquire(here.home / LOCK_FILE)
    assert held is not None
    with held:
        assert is_lasting(here)
