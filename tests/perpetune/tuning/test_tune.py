from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner, Result

from perpetune.cli import app
from perpetune.errors import PerpetuneError
from perpetune.params import TrainParams, TuneParams, load_params
from perpetune.tracking.runs import connect
from perpetune.training.trainer import Progress
from perpetune.tuning.search import OnProgress, Settings, Trial, search
from perpetune.tuning.tune import changes, with_settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
NOW = Settings(rank=8, learning_rate=1e-3, epochs=2)
SPACE = TuneParams(minutes=1000, trials=20, rank=(4, 32), learning_rate=(1e-5, 1e-1), epochs=(1, 3), seed=7)
MINUTES = 10.0  # of each made-up trial


def bowl(number: int, settings: Settings, judge: OnProgress) -> float:
    """A made-up training, validated at each of its four steps; the nearer the rate is to 3e-3, the better."""
    losses = [1 / step + abs(settings.learning_rate - 3e-3) for step in (1, 2, 3, 4)]
    for step, loss in enumerate(losses, start=1):
        judge(Progress(step, 4, loss, settings.learning_rate, 100, 0, loss), MINUTES * step / 4)
    return losses[-1]


def tried(space: TuneParams, now: Settings = NOW) -> list[Trial]:
    return list(search(space, now, bowl))


def lowest(trials: list[Trial]) -> float:
    return min(trial.validation_loss for trial in trials if trial.validation_loss is not None)


def test_todays_settings_come_first_and_others_beat_them() -> None:
    trials = tried(SPACE)
    assert trials[0].settings == NOW
    assert trials[0].state == "finished"
    assert trials[0].validation_loss is not None
    assert lowest(trials) < trials[0].validation_loss
    assert [trial.number for trial in trials] == list(range(1, 21))
    assert trials == tried(SPACE), "the seed decides"


def test_proposals_are_in_the_ranges_and_rounded() -> None:
    for trial in tried(SPACE)[1:]:
        settings = trial.settings
        assert 4 <= settings.rank <= 32
        assert 1e-5 <= settings.learning_rate <= 1e-1
        assert 1 <= settings.epochs <= 3
        assert settings.epochs == float(f"{settings.epochs:.3g}")


@pytest.mark.filterwarnings("error")
def test_current_settings_are_tried_even_outside_the_ranges() -> None:
    outside = Settings(rank=64, learning_rate=3e-3, epochs=9)
    narrow = SPACE.model_copy(update={"learning_rate": (1e-5, 1e-4), "trials": 6})
    trials = tried(narrow, outside)
    assert trials[0].settings == outside
    assert lowest(trials) == trials[0].validation_loss


def test_a_hopeless_trial_is_pruned_and_cheaper() -> None:
    pruned = [trial for trial in tried(SPACE) if trial.state == "pruned"]
    assert pruned
    assert all(trial.number > 3 and trial.validation_loss is None for trial in pruned)
    assert all(trial.minutes < MINUTES for trial in pruned)


def test_a_diverged_trial_is_pruned_at_once() -> None:
    def diverge(number: int, settings: Settings, judge: OnProgress) -> float:
        judge(Progress(1, 4, 1, 1, 1, 1, float("nan")), 1.0)
        raise AssertionError("it went on")

    assert [trial.state for trial in search(SPACE.model_copy(update={"trials": 2}), NOW, diverge)] == ["pruned"] * 2


@given(minutes=st.floats(0.1, 95))
def test_the_budget_is_kept(minutes: float) -> None:
    trials = tried(SPACE.model_copy(update={"minutes": minutes}))
    used = sum(trial.minutes for trial in trials)
    assert minutes <= used <= minutes + MINUTES / 4, "at most the step that the budget ends in"
    assert all(trial.state != "stopped" for trial in trials[:-1])
    assert trials[-1].state != "stopped" or trials[-1].validation_loss is None


def test_alpha_keeps_its_ratio_to_the_rank(train_params: TrainParams) -> None:
    assert with_settings(train_params, Settings(12, 1e-3, 2)).lora.alpha == 24
    assert changes(train_params, Settings(8, 0.01, 40)) == ()
    changed = {change.field: change.best for change in changes(train_params, Settings(12, 1e-3, 40))}
    assert changed == {"train.lora.rank": 12, "train.lora.alpha": 24, "train.learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rank: [2, 16]", "rank: [32, 4]", "tune.rank: the low end must not be above the high end, got [32, 4]"),
        ("epochs: [1, 6]", "epochs: [0, 3]", "tune.epochs.0: Input should be greater than 0"),
        ("epochs: [1, 6]", "epochs: [1, 2, 3]", "tune.epochs: Tuple should have at most 2 items"),
        ("epochs: [1, 6]", "epochs: [1, .inf]", "tune.epochs.1: Input should be a finite number"),
        ("5.0e-2]", "2e-3, fast]", "tune.learning_rate: Tuple should have at most 2 items"),
        ("  minutes: 60", "  minutes: 0", "tune.minutes: Input should be greater than 0"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = SETTINGS
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(PerpetuneError) as caught:
        load_params(path)
    line = text.splitlines().index("tune:") + 1
    named = str(caught.value).splitlines()[0]
    assert said in named
    assert line <= int(named.removeprefix(f"{path}:").split(":")[0]) <= line + 6


COLOURS = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
SETTINGS = """\
schema: 2
task:
  name: colours
  kind: classification
  instruction: which colour

base:
  model: path:BASE
fetch: {sources: [mine.csv]}
label_errors: {action: "off"}
private: {mode: "off"}

train:
  lora: {rank: 8, alpha: 16}
  epochs: auto
  precision: fp32
  learning_rate: 1.0e-3
  max_example_tokens: 32

split:
  validation: 0.1

tune:
  minutes: 60
  trials: 12
  rank: [2, 16]
  learning_rate: [1.0e-5, 5.0e-2]
  epochs: [1, 6]
"""


@dataclass(frozen=True)
class Done:
    """A search through the command line in a new workspace."""

    folder: Path
    before: str
    said: Result
    found: dict[str, Any]
    parent: Run
    children: list[Run]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, new_mlflow_store: Callable[[Path], str]
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tune")
    (folder / "params.yaml").write_text(SETTINGS.replace("BASE", str(tiny_folder)))
    shutil.copy(ROOT / "dvc.yaml", folder)
    rows = [f"the {thing} {n},{colour}" for n in range(20) for thing, colour in COLOURS.items()]
    (folder / "mine.csv").write_text("\n".join(["input,output", *rows]))
    store = new_mlflow_store(folder)
    connect(store)
    MlflowClient().create_experiment("colours", artifact_location=str(folder / "artifacts"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "PERPETUNE_HOME", "PERPETUNE_DATABASE_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", store)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def done(folder: Path) -> Done:
    before = (folder / "params.yaml").read_text()
    said = CliRunner().invoke(app, ["tune", "--minutes", "5", "--trials", "8", "--write", "--json"])
    assert said.exit_code == 0, said.stderr
    experiment = MlflowClient().get_experiment_by_name("colours")
    assert experiment is not None
    runs = MlflowClient().search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    kinds = {kind: [run for run in runs if run.data.tags["perpetune.kind"] == kind] for kind in ("tune", "trial")}
    (parent,) = kinds["tune"]
    return Done(folder, before, said, json.loads(said.stdout), parent, kinds["trial"])


def test_a_fresh_workspace_is_curated_and_searched(done: Done) -> None:
    trials = done.found["trials"]
    assert len(trials) == 8
    assert trials[0]["settings"] == {"rank": 8, "learning_rate": 1e-3, "epochs": 3}
    assert done.found["best"]["validation_loss"] < trials[0]["validation_loss"]
    assert {trial["state"] for trial in trials} == {"finished", "pruned"}
    assert sum(line.startswith("trial ") for line in done.said.stderr.splitlines()) == 8


def test_each_trial_is_a_child_run(done: Done) -> None:
    assert len(done.children) == 8
    for child, trial in zip(done.children, done.found["trials"], strict=True):
        assert child.data.tags["mlflow.parentRunId"] == done.parent.info.run_id
        assert child.info.status == {"finished": "FINISHED", "pruned": "KILLED"}[trial["state"]]
        assert child.data.tags["perpetune.state"] == trial["state"]
        assert child.data.params["rank"] == str(trial["settings"]["rank"])
        assert child.data.params["alpha"] == str(2 * trial["settings"]["rank"])
        assert child.data.metrics["train/tokens_per_second"] > 0
        curve = MlflowClient().get_metric_history(child.info.run_id, "validation/loss")
        assert len(curve) == 4 or (trial["state"] == "pruned" and len(curve) in (2, 3))
        if trial["state"] == "finished":
            assert min(point.value for point in curve) == trial["validation_loss"]


def test_the_parent_run_has_the_result(done: Done) -> None:
    best = done.found["best"]
    assert done.parent.info.status == "FINISHED"
    assert done.parent.data.metrics["tune/best_loss"] == best["validation_loss"]
    assert done.parent.data.params["best.rank"] == str(best["settings"]["rank"])
    assert done.parent.data.params["data.version"]
    names = {file.path for file in MlflowClient().list_artifacts(done.parent.info.run_id)}
    assert {"trials.json", "history.png", "params.yaml"} <= names


def test_the_best_is_written_and_nothing_else(done: Done) -> None:
    after = (done.folder / "params.yaml").read_text()
    pairs = [(old, new) for old, new in zip(done.before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert all(old.strip().startswith(("lora:", "epochs:", "learning_rate:")) for old, _ in pairs)
    train, best = load_params(done.folder / "params.yaml").train, done.found["best"]["settings"]
    assert (train.lora.rank, train.learning_rate, train.epochs) == (best["rank"], best["learning_rate"], best["epochs"])
    assert train.lora.alpha == 2 * best["rank"]
    assert not list(done.folder.glob(".perpetune/tmp*")), "no adapters are left"


def test_a_budget_that_no_trial_fits_into(done: Done) -> None:
    text = (done.folder / "params.yaml").read_text()
    (done.folder / "params.yaml").write_text(text.replace("  epochs: ", "  epochs: 50000  # ", 1))
    said = CliRunner().invoke(app, ["tune", "--minutes", "0.01", "--write"])
    assert said.exit_code == 1
    assert "no trial finished within 0.01 device minutes" in said.stderr
    assert ": stopped after 0.0" in said.output
    (done.folder / "params.yaml").write_text(text)


def test_wrong_usage(folder: Path) -> None:
    for wrong in (["--minutes", "0"], ["--trials", "0"], ["--minutes", "long"]):
        assert CliRunner().invoke(app, ["tune", *wrong]).exit_code == 2


def test_without_validation_rows(done: Done) -> None:
    text = (done.folder / "params.yaml").read_text()
    (done.folder / "params.yaml").write_text(text.replace("  validation: 0.1", "  validation: 0.0\n  seed: 8"))
    said = CliRunner().invoke(app, ["tune"])
    (done.folder / "params.yaml").write_text(text)
    assert said.exit_code == 1
    assert "params.yaml: split.validation: there are no validation rows" in said.stderr
    assert "another split.seed" in said.stderr, "rows that are recorded for training stay there"
