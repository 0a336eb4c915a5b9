from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.replay.command import learner_of
from perpetune.replay.models.surrogate import Surrogate
from perpetune.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return open_workspace(tmp_path)


def test_the_former_name_of_the_surrogate_gives_a_warning(workspace: Workspace) -> None:
    with pytest.warns(FutureWarning, match="`stand-in` is now called `surrogate`"):
        former = learner_of("stand-in", workspace, workspace.root, 3.0, print)
    assert former == learner_of("surrogate", workspace, workspace.root, 3.0, print)
    assert isinstance(former, Surrogate)


def test_an_unknown_model_is_an_error(workspace: Workspace) -> None:
    with pytest.raises(PerpetuneError, match="unknown model 'large'"):
        learner_of("large", workspace, workspace.root, None, print)
