"""A challenger that waits for labels of disagreements is decided on when they have come."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perpetune.loop.disagreements.comparison import Disagreement, TrafficComparison, TrafficSample
from perpetune.loop.disagreements.decide import Progress, ask_for_disagreements, decide_again, evidence_of
from perpetune.loop.rollout.deploy import release
from perpetune.loop.run_context import RECORD
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.verdict import Interval, Verdict
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.requests import open_requests
from perpetune.prediction_log.writes import add_feedback, record_rows
from perpetune.records import Feedback, Message, Prediction
from perpetune.tracking import registry
from perpetune.tracking.runs import artifact, find_run, log_text

pytestmark = pytest.mark.slow

ROWS = 1500
SMALL = PairedEvidence(0.01, Interval(-0.05, 0.06), 0.4, 200, 0.1, 1.0, 0.85)
UNDECIDED = Verdict("collect more labels", ("The 200 rows of the frozen holdout would miss it.",), "A rule.")


@dataclass
class Waiting:
    """A challenger without a verdict, compared with the champion on 1,500 recent and 1,500 earlier requests."""

    world: Any
    challenger: str
    sentences: tuple[str, ...]

    def asked(self) -> list[str]:
        log = open_log(self.world.workspace.settings.prediction_log)
        try:
            return [each.request_id for each in open_requests(log, self.world.task)]
        finally:
            log.dispose()

    def label(self, request_ids: list[str], won: Callable[[str, int], bool]) -> None:
        """Give each request the challenger's answer or the champion's as its label."""
        log = open_log(self.world.workspace.settings.prediction_log)
        for number, request_id in enumerate(sorted(request_ids, key=lambda name: name[::-1])):
            label = "good" if won(request_id, number) else "bad"
            add_feedback(log, Feedback(request_id=request_id, time=datetime.now(UTC), label=label))
        log.dispose()

    def decide(self) -> Decision | Progress | None:
        return decide_again(self.world.workspace, "flow")


def sample(name: str) -> TrafficSample:
    """A tenth of the requests is answered differently: the champion says "bad", the challenger "good"."""
    differing = tuple(
        Disagreement(request_id=f"{name}-{n}", champion="bad", challenger="good") for n in range(ROWS // 10)
    )
    held_out = (1.0, 1.0, 1.0, -1.0) * 3 if name == "recent" else (1.0, -1.0) * 10
    return TrafficSample(rows=ROWS, differing=differing, held_out=200, held_out_differing=held_out)


@pytest.fixture
def waiting(releases: Callable[..., Any]) -> Waiting:
    return wait(releases())


def wait(world: Any) -> Waiting:
    champion, challenger = world.make(), world.make()
    release(world.workspace, champion)
    compared = TrafficComparison(
        champion=champion, challenger=challenger, recent=sample("recent"), earlier=sample("earlier")
    )
    log = open_log(world.workspace.settings.prediction_log)
    now = datetime.now(UTC) - timedelta(days=1)
    record_rows(
        log,
        [
            Prediction(
                id=each.request_id,
                time=now,
                task=world.task,
                version=champion,
                messages=(Message(role="user", content=each.request_id),),
                input=each.request_id,
                output=each.champion,
                prompt_tokens=1,
                completion_tokens=1,
                latency_ms=1,
            )
            for each in (*compared.recent.differing, *compared.earlier.differing)
        ],
    )
    log.dispose()
    evidence = PromotionEvidence(SMALL, SMALL, "champion")
    run = find_run(registry.get(world.task, challenger).run_id)
    _, verdict = ask_for_disagreements(world.workspace, run, compared, evidence)
    ids = Ids(run_id=run.id, model_version=challenger, champion_version=champion)
    first = record(UNDECIDED, evidence, task=world.task, time=datetime.now(UTC), ids=ids)
    log_text(run, first.to_json(), RECORD)
    registry.tag_version(world.task, challenger, {"decision": first.outcome})
    return Waiting(world, challenger, verdict.reasons)


def half(_: str, number: int) -> bool:
    return number % 2 == 0


def mostly_on_recent(name: str, number: int) -> bool:
    """Better by five points on recent traffic, equal on earlier."""
    return number % 4 != 0 if name.startswith("recent") else half(name, number)


def test_few_labels_of_disagreements_promote_what_the_holdouts_could_not_show(waiting: Waiting) -> None:
    asked = waiting.asked()
    assert 100 < len(asked) <= 200, "at most promote.disagreement_labels"
    assert f"Label {len(asked)} requests to decide" in waiting.sentences[0]
    assert "disagree on 150 of 1,500 recent requests" in waiting.sentences[0]
    found = waiting.decide()
    assert found == Progress(waiting.challenger, 0, len(asked))
    waiting.label(asked, mostly_on_recent)
    decision = waiting.decide()
    assert isinstance(decision, Decision) and decision.outcome == "promote"
    assert "On recent traffic the challenger is better than the champion" in " ".join(decision.reasons)
    assert decision.ids.model_version == waiting.challenger
    assert waiting.world.tags(waiting.challenger)["decision"] == "promote"
    assert evidence_of(decision).traffic is not None, "the record can be decided on again"
    again = waiting.decide()
    assert isinstance(again, Decision) and again.outcome == "promote", "killed before the release: repeated"
    release(waiting.world.workspace, waiting.challenger)
    assert waiting.decide() is None


def test_an_equal_challenger_is_not_promoted(waiting: Waiting) -> None:
    waiting.label(waiting.asked(), half)
    decision = waiting.decide()
    assert isinstance(decision, Decision) and decision.outcome == "reject"
    assert "is not shown to be better" in decision.reason
    assert waiting.decide() is None, "the verdict stands until the next refresh"


def test_a_loss_on_earlier_traffic_is_seen(waiting: Waiting) -> None:
    def lost(name: str, number: int) -> bool:
        return name.startswith("recent") or number % 4 == 0

    waiting.label(waiting.asked(), lost)
    decision = waiting.decide()
    assert isinstance(decision, Decision) and decision.outcome != "promote"
    assert "On earlier traffic and the frozen holdout" in " ".join(decision.reasons)


def test_labels_decide_when_most_of_them_have_come_and_their_order_does_not_matter(waiting: Waiting) -> None:
    asked = waiting.asked()
    random.Random(3).shuffle(asked)
    most = len(asked) * 9 // 10 + 1
    waiting.label(asked[: most // 2], mostly_on_recent)
    found = waiting.decide()
    assert isinstance(found, Progress) and found.labelled == most // 2 and not found.complete
    waiting.label(asked[most // 2 : most], lambda name, number: name.startswith("recent") or number % 2 == 0)
    assert isinstance(waiting.decide(), Decision)


def test_without_its_champion_a_comparison_says_nothing(waiting: Waiting) -> None:
    waiting.label(waiting.asked(), mostly_on_recent)
    release(waiting.world.workspace, waiting.world.make())
    assert waiting.decide() is None


def test_labels_beyond_the_setting_are_asked_for_in_another_round(releases: Callable[..., Any]) -> None:
    world = releases()
    rules = world.workspace.params.promote.model_copy(update={"disagreement_labels": 30})
    world.workspace = replace(world.workspace, params=world.workspace.params.model_copy(update={"promote": rules}))
    waiting = wait(world)
    first = waiting.asked()
    assert len(first) == 30
    waiting.label(first, mostly_on_recent)
    decision = waiting.decide()
    assert isinstance(decision, Decision) and decision.outcome == "collect more labels"
    assert waiting.asked(), "more were asked for"
    run_id = registry.get(waiting.world.task, waiting.challenger).run_id
    path = artifact(run_id, "traffic.json", waiting.world.workspace.run_folder(run_id))
    assert path is not None
    stored = TrafficComparison.model_validate_json(path.read_text(encoding="utf-8"))
    assert (stored.rounds, len(stored.asked())) == (2, len(first) + len(waiting.asked()))
    waiting.label(waiting.asked(), mostly_on_recent)
    decision = waiting.decide()
    assert isinstance(decision, Decision) and decision.outcome == "promote"
    assert "below 0.0125" in " ".join(decision.reasons), "each round halves the level"


def test_answers_that_hardly_differ_are_decided_on_without_labels(releases: Callable[..., Any]) -> None:
    """Three of 1,500 requests: no gain of five points is possible, so nobody is asked."""
    world = releases()
    few = TrafficSample(rows=ROWS, differing=sample("recent").differing[:3], held_out=200)
    compared = TrafficComparison(champion="1", challenger="2", recent=few, earlier=few)
    run = find_run(registry.get(world.task, world.make()).run_id)
    evidence, verdict = ask_for_disagreements(
        world.workspace, run, compared, PromotionEvidence(SMALL, SMALL, "champion")
    )
    assert verdict.outcome == "reject" and evidence.traffic is not None
    assert "is not shown to be better" in verdict.reasons[0]
