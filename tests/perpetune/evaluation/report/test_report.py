from __future__ import annotations

import re
import xml.dom.minidom
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from perpetune.evaluation.costs import RefreshCost, refresh_economics
from perpetune.evaluation.economics.usage import Usage
from perpetune.evaluation.evaluate import Evaluation, evaluate
from perpetune.evaluation.report.report import figures, write_report
from perpetune.evaluation.report.style import DARK, LIGHT, svg, write_png
from perpetune.generation.answer import Answer
from perpetune.params import EconomicsParams, EvaluateParams
from perpetune.records import Example

Examples = Callable[[Sequence[tuple[str, str]]], list[Example]]
Say = Callable[..., Answer]

VOID = {"meta", "br", "link", "img"}


class _Balanced(HTMLParser):
    """Fails if a closed tag is not the last opened one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(path: Path, evaluation: Evaluation) -> str:
    write_report(
        path, {"frozen": evaluation}, task="reviews", version="version 3", facts={"run": "https://example.org/r/1"}
    )
    page = path.read_text(encoding="utf-8")
    parser = _Balanced()
    parser.feed(page)
    assert parser.open == []
    return page


def test_the_page_leads_with_the_finding(tmp_path: Path, examples: Examples, say: Say, params: EvaluateParams) -> None:
    rows = examples([("lovely", "good"), ("awful", "bad")] * 61)
    found = evaluate(
        rows,
        {"base": [say("good")] * 122, "challenger": [say(row.output, {"good": 0.5, "bad": 0.5}) for row in rows]},
        rows,
        "classification",
        params,
    )
    page = page_of(tmp_path / "out" / "report.html", found)
    assert page.index("No language model is needed") < page.index("All systems on the same rows") < page.index("<svg")
    assert page.count("<svg") == 4
    assert "<h1>Version 3: evaluation</h1>" in page
    assert '<a href="https://example.org/r/1">' in page
    assert not re.search(r'(src|href)="(?!https://example\.org)', page.replace('xlink:href="', "")), "self-contained"
    assert not list(tmp_path.rglob("*.unfinished"))


def test_text_from_data_is_escaped(tmp_path: Path, examples: Examples, say: Say, params: EvaluateParams) -> None:
    attack = "<script>alert('$x$')</script>"
    rows = examples([(attack, attack), (attack, "fine & $dandy$")])
    found = evaluate(rows, {"challenger": [say("fine & $dandy$"), say(attack)]}, rows, "classification", params)
    page = page_of(tmp_path / "report.html", found)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "generation"])
@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([("one", "yes")], id="one row"),
        pytest.param([("a", "yes")] * 12, id="one label"),
        pytest.param([("", "")] * 3, id="empty"),
        pytest.param([("naïve 😀 文字", "ответ €"), ("مرحبا", "مرحبا"), ("a\x0bb", "日本語")], id="unicode"),
        pytest.param([(f"text {n}", f"intent {n % 77}") for n in range(77)], id="77 labels"),
        pytest.param([(f"text {n}", f"a rather long name of an intent {n}") for n in range(120)], id="120 labels"),
    ],
)
def test_every_edge_gives_a_page_and_pictures(
    tmp_path: Path,
    examples: Examples,
    say: Say,
    params: EvaluateParams,
    pairs: list[tuple[str, str]],
    kind: str,
) -> None:
    rows = examples(pairs)
    systems = {"base": [say("")] * len(rows), "challenger": [say(row.output) for row in rows]}
    found = evaluate(rows, systems, rows[:8], kind, params)  # type: ignore[arg-type]
    page_of(tmp_path / "report.html", found)
    for name, figure in figures(found).items():
        write_png(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        xml.dom.minidom.parseString(svg(figure, 'what "it" shows'))


def test_pictures_follow_the_colours_of_the_page(examples: Examples, say: Say, params: EvaluateParams) -> None:
    rows = examples([("lovely", "good"), ("awful", "bad")])
    found = evaluate(rows, {"challenger": [say("good")] * 2}, rows, "classification", params)
    for figure in figures(found).values():
        element = svg(figure, "a picture")
        assert "var(--ink)" in element
        assert not any(value in element for value in LIGHT.values())
    assert set(LIGHT) == set(DARK)
    assert len(set(LIGHT.values())) == len(LIGHT), "a colour is found again by its value"


def test_the_same_evaluation_gives_the_same_page(
    tmp_path: Path, examples: Examples, say: Say, params: EvaluateParams
) -> None:
    rows = examples([("lovely", "good"), ("awful", "bad")])
    found = evaluate(rows, {"challenger": [say("good")] * 2}, rows, "classification", params)
    assert page_of(tmp_path / "a.html", found) == page_of(tmp_path / "b.html", found)


def test_the_page_says_what_the_refresh_is_worth(
    tmp_path: Path, examples: Examples, say: Say, params: EvaluateParams
) -> None:
    rows = examples([("lovely", "good"), ("awful", "bad")] * 10)
    answers = {"base": [say("good", seconds=0.3)] * 20, "challenger": [say("good")] * 20}
    found = evaluate(rows, answers, rows, "classification", params)
    usage = {
        system: Usage(scored.seconds, scored.prompt_tokens, scored.completion_tokens)
        for system, scored in found.scored.items()
    }
    prices = EconomicsParams(larger_model=None, requests_per_month=None, dollars_per_label=0.0)
    worth = refresh_economics(usage, RefreshCost(device_hours=0.5, labels=0), prices, params, None)

    path = tmp_path / "worth.html"
    write_report(path, {"frozen": found}, task="reviews", version="version 3", worth=worth)

    page = path.read_text(encoding="utf-8")
    assert "Costs and savings of the refresh" in page
    assert "it pays for itself after 9,000 requests" in page


def test_costs_that_are_all_the_same_have_no_interval(
    tmp_path: Path, examples: Examples, say: Say, params: EvaluateParams
) -> None:
    rows = examples([("lovely", "good"), ("awful", "bad")] * 10)
    found = evaluate(rows, {"challenger": [say(row.output) for row in rows]}, rows, "classification", params)
    usage = {name: Usage((0.1,) * 20, (60,) * 20, (2,) * 20, (1.0,) * 20) for name in ("challenger", "base")}
    worth = refresh_economics(usage, RefreshCost(1.0, 0), EconomicsParams(), params, None)
    path = tmp_path / "report.html"
    write_report(path, {"frozen": found}, task="reviews", version="version 3", worth=worth)
    costs = path.read_text(encoding="utf-8").partition("Costs and savings")[2]
    assert "Cost beside accuracy" in costs
    assert not re.search(r"(\$[\d.]+|never) to \1<", costs)
