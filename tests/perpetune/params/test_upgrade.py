from __future__ import annotations

from difflib import ndiff
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.params import load_params
from perpetune.params.upgrade import upgrade

OLD = """\
# What our team set.
task: {name: tickets, kind: classification, instruction: Which team}

train:
  warmup_share: 0.2     # longer than usual
  "max_gradient_norm": 1.0
release: {strategy: canary, share: 0.25, margin: 0.05}
promote:
  simpler: 0.02
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_names_and_schema_change_and_nothing_else(line_end: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    before = OLD.replace("\n", line_end)
    path.write_bytes(before.encode())
    done = upgrade(path)
    after = path.read_bytes().decode()
    assert [line for line in ndiff(before.split(line_end), after.split(line_end)) if line[0] in "+-"] == [
        "+ schema: 2",
        "-   warmup_share: 0.2     # longer than usual",
        "+   warmup_ratio: 0.2     # longer than usual",
        '-   "max_gradient_norm": 1.0',
        "+   max_grad_norm: 1.0",
        "- release: {strategy: canary, share: 0.25, margin: 0.05}",
        "+ release: {strategy: canary, traffic_ratio: 0.25, margin: 0.05}",
        "-   simpler: 0.02",
        "+   simpler_margin: 0.02",
    ]
    assert (done.from_schema, done.to_schema, len(done.renamed)) == (1, 2, 4)
    assert done.copy == tmp_path / "params.yaml.bak" and done.copy.read_bytes().decode() == before
    params = load_params(path)
    assert (params.train.warmup_ratio, params.release.traffic_ratio, params.promote.simpler_margin) == (0.2, 0.25, 0.02)
    again = upgrade(path)
    assert (again.renamed, again.copy, again.diff) == ({}, None, ""), "it is up to date"


def test_a_dry_run_shows_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(OLD)
    done = upgrade(path, dry_run=True)
    assert "-  warmup_share: 0.2" in done.diff and "+  warmup_ratio: 0.2" in done.diff
    assert path.read_text() == OLD and list(tmp_path.iterdir()) == [path]


def test_a_copy_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(OLD)
    (tmp_path / "params.yaml.bak").write_text("mine")
    assert upgrade(tmp_path / "params.yaml").copy == tmp_path / "params.yaml.bak2"
    assert (tmp_path / "params.yaml.bak").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OLD.replace("  simpler: 0.02", "  simpler: 0.02\n  simpler_margin: 0.01"), "are the same setting"),
        ("schema: 3\n" + OLD, "newer than this perpetune"),
        ("[", "not valid YAML"),
    ],
)
def test_what_cannot_be_upgraded_stays_as_it_is(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(PerpetuneError, match=said):
        upgrade(path)
    assert path.read_text() == text
