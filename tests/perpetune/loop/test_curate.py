from __future__ import annotations

from pathlib import Path

import pytest
from workspaces import write_params

from perpetune.errors import PerpetuneError
from perpetune.loop.curate import require_known_labels
from perpetune.records import Example, write_jsonl
from perpetune.workspace import open_workspace


@pytest.mark.parametrize(
    ("promote", "said"),
    [
        ({"costs": {"froud": 50}}, "promote.costs.froud: no row of the training data has the label 'froud'"),
        (
            {"costs": {"Fraud": {"fine": 50}}},
            "promote.costs.Fraud.fine: no row of the training data has the label 'fine'",
        ),
        ({"recall_floors": {"froud": 0.9}}, "promote.recall_floors.froud: no row"),
        ({"costs": {"Fraud": {"*": 50, "other": 2}}, "recall_floors": {"fraud": 0.9}}, None),
        ({}, None),
    ],
)
def test_labels_learned_from_data_are_checked_once_they_are_known(
    promote: dict[str, object], said: str | None, tmp_path: Path
) -> None:
    write_params(tmp_path, promote=promote)
    workspace = open_workspace(tmp_path)
    rows = [Example(input="?", output=label, id=label, group=label, source="t") for label in ("fraud", "other")]
    write_jsonl(workspace.split("train"), rows)
    if said is None:
        require_known_labels(workspace)
        return
    with pytest.raises(PerpetuneError) as fault:
        require_known_labels(workspace)
    assert said in str(fault.value) and "(fraud, other)" in str(fault.value)
