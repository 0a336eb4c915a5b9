from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from perpetune.demo.stages import Stages


def stages(*, terminal: bool) -> tuple[Stages, io.StringIO]:
    out = io.StringIO()
    return Stages(Console(file=out, force_terminal=terminal, width=200, color_system=None), time.time()), out


def lines(terminal: bool) -> list[str]:
    found, out = stages(terminal=terminal)
    with found.stage("first refresh") as stage:
        stage.show("training ███ 40/100")
        stage.came("0 failed")
        stage.came("promote the challenger: +6.1 points [n=219]")
    with found.stage("services"):
        pass
    assert [title for title, _ in found.done] == ["first refresh", "services"]
    plain = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n")
    return [line for line in plain.splitlines() if line.strip()]


def test_on_a_terminal_a_stage_is_one_line_that_stays() -> None:
    shown = lines(terminal=True)
    assert "00:00 first refresh: 0 failed; promote the challenger: +6.1 points [n=219]" in shown
    assert shown[-1].endswith("00:00 services")


def test_a_file_gets_the_title_when_a_stage_begins_and_nothing_that_moves() -> None:
    outcome = "  0 failed; promote the challenger: +6.1 points [n=219]"
    assert lines(terminal=False) == ["00:00 first refresh", outcome, "00:00 services"]


def test_a_stage_that_fails_ends_its_line() -> None:
    found, out = stages(terminal=False)
    with pytest.raises(ValueError, match="no"), found.stage("services"):
        raise ValueError("no")
    assert out.getvalue() == "00:00 services\n"
    assert found.done == []
