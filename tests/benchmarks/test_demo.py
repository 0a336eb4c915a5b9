"""The chart of a demo, from the file that a finished demo leaves."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "demo.py"
AFTER = {"value": 0.83, "low": 0.75, "high": 0.89, "n": 60}
SAVED: dict[str, Any] = {
    "summary": {
        "moments": [{"with_loop": n < 100 or n >= 240, "without_loop": n < 100} for n in range(300)],
        "turned_at": 100,
        "swap_at": 240,
        "checks": [{"requests": 200, "line": "retrain: 46.0% right (37 to 56, n=100)", "outcome": "retrain"}],
        "after": {"difference": 0.4, "low": 0.3, "high": 0.5, "n": 60},
        "verdict": "The loop helped: +40.0 points.",
    },
    "accuracies": {
        "before": {"value": 0.9, "low": 0.83, "high": 0.94, "n": 100},
        "changed": {"value": 0.43, "low": 0.39, "high": 0.48, "n": 140},
        "after": AFTER,
        "after_without": {"value": 0.43, "low": 0.31, "high": 0.56, "n": 60},
    },
    "requests": 300,
    "failed": 0,
    "decay_at": 200,
    "drift_at": 150,
    "seconds": 527.0,
    "device": "2 cores of a test",
    "versions": {"torch": "2.13.0"},
    "commit": "abc",
}


@pytest.fixture
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_chart", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(picture: Path) -> set[str]:
    """The texts of the picture, which must be whole XML."""
    found = ElementTree.fromstring(picture.read_text()).iter("{http://www.w3.org/2000/svg}text")
    return {"".join(each.itertext()).strip() for each in found}


def test_a_finished_folder_is_enough(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo.json").write_text(json.dumps(SAVED))
    monkeypatch.setattr(sys, "argv", ["demo.py", str(tmp_path), "--out", str(tmp_path / "images")])
    assert demo.main() == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "images" / name) for name in ("demo.svg", "demo.json")]
    monkeypatch.setattr(sys, "argv", ["demo.py", str(tmp_path / "x")])
    assert demo.main() == 1
    assert "no finished demo lies here" in capsys.readouterr().err


def test_the_picture_names_every_moment_and_each_accuracy(demo: ModuleType, tmp_path: Path) -> None:
    picture, numbers = demo.write(SAVED, tmp_path)
    assert {"traffic changes", "decay found", "refresh", "new version"} <= words(picture)
    assert {"90%", "(83 to 94)", "with the loop", "83% (75 to 89)", "without", "43% (31 to 56)"} <= words(picture)
    text = picture.read_text()
    assert "prefers-color-scheme: dark" in text and "var(--paper)" in text and 'aria-label="Accuracy over 300' in text
    kept = json.loads(numbers.read_text())
    assert kept["accuracies"]["after"] == AFTER and kept["gain"]["difference"] == 0.4
    assert kept["checks"] == [{"requests": 200, "verdict": "retrain: 46.0% right (37 to 56, n=100)"}]
    assert {"requests", "failed", "seconds", "device", "versions", "commit"} <= kept.keys()


def test_a_loop_that_changed_nothing_is_drawn_too(demo: ModuleType, tmp_path: Path) -> None:
    stable = copy.deepcopy(SAVED)
    stable["summary"] |= {"swap_at": None, "after": None}
    stable["decay_at"] = None
    del stable["accuracies"]["after"], stable["accuracies"]["after_without"]
    picture, numbers = demo.write(stable, tmp_path)
    assert "traffic changes" in words(picture) and not {"refresh", "new version"} & words(picture)
    assert json.loads(numbers.read_text())["gain"] is None


def test_labels_that_would_touch_are_moved_apart(demo: ModuleType) -> None:
    assert demo._apart([0.8, 0.4]) == [0.8, 0.4]
    high, low = demo._apart([0.81, 0.8])
    assert high - low == pytest.approx(demo.LABEL)
    assert demo._apart([0.5]) == [0.5]
