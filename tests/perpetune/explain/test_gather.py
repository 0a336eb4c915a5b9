from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from perpetune.errors import PerpetuneError
from perpetune.explain.gather import gather
from perpetune.explain.page import log_page, write_page
from perpetune.explain.story import Story
from perpetune.explain.terminal import as_dict, show_story
from perpetune.tracking.runs import artifact_names, find_run
from perpetune.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def story(twice: Workspace) -> Story:
    return gather(twice, "2")


def shown(story: Story) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show_story(story, console)
    return console.export_text()


def test_a_version_tells_where_it_comes_from(story: Story) -> None:
    assert (story.task, story.version) == ("colours", "2")
    assert (story.trigger.kind, story.trigger.reason) == ("decay", "the champion scores 20 points less")
    assert story.data.previous == "1"
    apart = story.data.difference
    assert apart is not None
    assert apart.added > 0 and apart.labels["red"].after < apart.labels["blue"].after
    assert sum(count.after for count in apart.splits.values()) == sum(story.data.rows.values())
    assert len(story.training.train_loss) > 1


def test_every_score_has_its_interval_and_rows(story: Story) -> None:
    (scores,) = [each for each in story.scores if each.holdout == "frozen"]
    assert {"base", "champion", "challenger"} <= set(scores.systems)
    for found in scores.systems.values():
        assert found.low <= found.value <= found.high
        assert found.n == story.data.rows["frozen"]
    frozen = story.verdicts[0].numbers.measured[0]
    assert (frozen.name, frozen.unit, frozen.rows) == ("frozen holdout", "points", story.data.rows["frozen"])


def test_the_first_version_has_nothing_before_it(twice: Workspace) -> None:
    story = gather(twice, "1")
    assert story.aliases == ("champion",)
    assert story.data.difference is None and "no earlier data" in story.data.note
    with pytest.raises(PerpetuneError, match="no version 9"):
        gather(twice, "9")


def test_data_that_is_gone_is_said_to_be_gone(twice: Workspace, tmp_path: Path) -> None:
    elsewhere = Workspace(tmp_path, twice.params, twice.settings)
    story = gather(elsewhere, "2")
    assert story.data.difference is None
    assert "cannot be told" in story.data.note
    assert "cannot be told" in shown(story)


def test_terminal_json_and_page_tell_the_same(story: Story, tmp_path: Path) -> None:
    write_page(tmp_path / "2.html", story)
    page, text, plain = (tmp_path / "2.html").read_text(), shown(story), json.dumps(as_dict(story), default=str)
    for said in ("the champion scores 20 points less", story.data.version, "perpetune reproduce 2"):
        assert said in page and said in text and said in plain
    assert story.outcome == as_dict(story)["outcome"]
    assert "<svg" in page and "src=" not in page and "<link" not in page


def test_the_page_lies_with_the_run(twice: Workspace, story: Story) -> None:
    run = find_run(story.repeat.ids["MLflow run"])
    log_page(twice, run, "2")
    assert "explain.html" in artifact_names(run.id, "")
