"""Tasks that hang are ended at their time limit."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prefect import flow
from prefect.cache_policies import NO_CACHE

from perpetune.errors import PerpetuneError
from perpetune.flows.alerting.automations import longest_runs
from perpetune.params import LimitsParams, load_params
from perpetune.settings import Settings
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import SETTINGS, limited_task, seconds_of
from perpetune.workspace import Workspace

# Not by SIGALRM, which Prefect leaves alone if somebody else uses it; its own limit then waits for native code to return.
pytestmark = pytest.mark.timeout(300, method="thread")

ROOT = Path(__file__).parents[2]
HALF_A_SECOND = LimitsParams(train_hours=0.5 / 3600)
tries: list[float] = []


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    params = load_params(ROOT / "params.yaml").model_copy(update={"limits": HALF_A_SECOND})
    return Workspace(tmp_path, params, Settings())


@limited_task("train", name="hang", retries=2, retry_condition_fn=unless_user_error, cache_policy=NO_CACHE)
def hang(workspace: Workspace, how: str) -> str:
    tries.append(time.monotonic())
    if how == "sleep":
        time.sleep(60)
    elif how == "process":
        subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], check=True)
    elif how == "own timeout":
        raise TimeoutError("a request took too long")
    return "done"


@flow
def run(workspace: Workspace, how: str) -> str:
    return hang(workspace, how)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleep", "process"])
def test_what_hangs_is_ended_once_and_said(prefect: str, workspace: Workspace, how: str) -> None:
    tries.clear()
    with pytest.raises(PerpetuneError, match=r"the task 'hang' was ended after .* its time limit") as raised:
        run(workspace, how)
    assert time.monotonic() - tries[0] < 30
    assert len(tries) == 1, "it is not tried again"
    assert "limits.train_hours" in str(raised.value)


@pytest.mark.slow
def test_what_is_in_time_or_has_a_timeout_of_its_own_goes_on_as_before(prefect: str, workspace: Workspace) -> None:
    ample = workspace.params.model_copy(update={"limits": LimitsParams()})
    tries.clear()
    assert run(replace(workspace, params=ample), "none") == "done"
    with pytest.raises(TimeoutError, match="a request took too long"):
        run(replace(workspace, params=ample), "own timeout")
    assert len(tries) == 4, "an error that may pass is tried again"


def test_every_setting_limits_a_step() -> None:
    limits = LimitsParams()
    assert {setting for setting, _ in SETTINGS.values()} == set(LimitsParams.model_fields)
    assert {step: seconds_of(step, limits) / 3600 for step in SETTINGS} == {
        "curate": 12,
        "train": 72,
        "evaluate": 24,
        "check": 3,
        "trial": 60 * 24,
        "other": 1,
    }


def test_a_run_is_cancelled_only_after_its_tasks_may_have_been_tried_thrice() -> None:
    found = longest_runs(LimitsParams(curate_hours=1, train_hours=2, evaluate_hours=3, check_hours=4, other_minutes=60))
    assert found == {"watch": 24, "refresh": 30, "trial": 24 * 60 + 12, "approval": 12, "retention": 12}
