from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from command_line import perpetune

from perpetune.audit.store import entries
from perpetune.errors import PerpetuneError
from perpetune.explain.status import decisions_of
from perpetune.loop.rollout.deploy import release
from perpetune.loop.rollout.rollback import log_rollback, record_rollback, roll_back
from perpetune.loop.run_context import log_decision
from perpetune.policy.decision.record import Ids, record
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.verdict import Interval, Verdict
from perpetune.prediction_log.database import open_log
from perpetune.runtime.gateway_client import RollbackReply
from perpetune.tracking import registry
from perpetune.tracking.runs import find_run

pytestmark = pytest.mark.slow

Open = Callable[..., Any]
BETTER = PairedEvidence(0.1, Interval(0.05, 0.15), 0.001, 200)


def released(world: Any) -> tuple[str, str]:
    """Two versions, promoted one after the other, with the record of each promotion."""
    versions = world.make(), world.make()
    for version in versions:
        release(world.workspace, version)
        run = find_run(registry.get(world.task, version).run_id)
        verdict = Verdict("promote", ("It is better.",), "Promote what is better.")
        evidence = PromotionEvidence(BETTER, None, "base")
        ids = Ids(run_id=run.id, model_version=version)
        log_decision(world.workspace, run, record(verdict, evidence, task=world.task, time=datetime.now(UTC), ids=ids))
    return versions


def test_without_a_gateway_the_registry_rolls_back_and_the_record_is_logged(releases: Open) -> None:
    world = releases()
    first, second = released(world)
    went = roll_back(world.workspace, "wrong tone")
    assert (went.rolled_back, went.restored, went.seconds) == (second, first, None)
    assert world.aliases()[0] == first
    record_rollback(world.workspace, went, "wrong tone")
    newest, promotion = decisions_of(world.workspace, second)
    assert (newest.kind, newest.outcome, promotion.kind) == ("rollback", "roll back", "promotion")
    assert newest.reason == f"Rolled back from version {second} to version {first}: wrong tone"
    tags = world.tags(second)
    assert (tags["release.state"], tags["decision"]) == ("rolled back", "roll back")
    assert [each.kind for each in decisions_of(world.workspace, first)] == ["promotion"]


def test_decisions_are_in_the_audit_log_once_with_the_digest_of_their_record(releases: Open) -> None:
    world = releases()
    _, second = released(world)
    decision = record_rollback(world.workspace, roll_back(world.workspace, "wrong tone"), "wrong tone")
    log_rollback(world.workspace, decision, RollbackReply(second, "1", None))  # the step is repeated after a kill
    log = open_log(world.workspace.settings.prediction_log)
    *promotions, rollback = entries(log)
    log.dispose()
    assert [each.event.action for each in promotions] == ["decided (promotion)"] * 2
    assert (rollback.event.action, rollback.event.subject) == ("decided (rollback)", f"{world.task} version {second}")
    digest = hashlib.sha256(decision.to_json().encode()).hexdigest()
    assert rollback.event.details == {"outcome": "roll back", "record": digest, "run": decision.ids.run_id}
    assert decisions_of(world.workspace, second)[0].to_json() == decision.to_json()


def test_a_decision_that_cannot_be_audited_is_only_a_draft(releases: Open) -> None:
    world = releases()
    _, second = released(world)
    went = roll_back(world.workspace, "wrong tone")
    log = open_log(world.workspace.settings.prediction_log)
    with log.begin() as connection:
        connection.exec_driver_sql("DROP TABLE audit")
    log.dispose()
    with pytest.raises(PerpetuneError, match="cannot be written to the audit log: no such table"):
        record_rollback(world.workspace, went, "wrong tone")
    assert registry.get(world.task, second).tags.get("decision") != "roll back"


def test_there_must_be_a_previous_champion(releases: Open, gateway: Any) -> None:
    world = releases()
    release(world.workspace, world.make())
    with pytest.raises(PerpetuneError, match="no previous"):
        roll_back(world.workspace, "why not")
    gateway.task = world.task
    with pytest.raises(PerpetuneError, match=r"the gateway refused \(409\).*no previous"):
        roll_back(releases(gateway.url).workspace, "why not")


def test_the_command_rolls_back_through_the_gateway(releases: Open, gateway: Any) -> None:
    world = releases(gateway.url)
    gateway.task = world.task
    first, second = released(world)
    began, switched = time.monotonic(), []

    def timed_roll_back(roll_back: Callable[[], Any] = gateway.roll_back) -> Any:
        done = roll_back()
        switched.append(time.monotonic() - began)
        return done

    gateway.roll_back = timed_roll_back
    said = perpetune(world.workspace.root, "rollback", "--reason", "it promises refunds", "--json")
    assert said.exit_code == 0, said.stderr
    result = json.loads(said.stdout)
    assert (result["rolled_back"], result["restored"], result["decision"]["outcome"]) == (second, first, "roll back")
    assert (gateway.serving, world.aliases()[0]) == (first, first)
    print(f"the gateway served version {first} {switched[0]:.2f} s after the command began")
    assert switched[0] < 10, "before MLflow is imported; one second where the machine is not shared"
    assert decisions_of(world.workspace, second)[0].kind == "rollback"
    gateway.roll_back = type(gateway).roll_back.__get__(gateway)
    again = perpetune(world.workspace.root, "rollback")
    assert again.exit_code == 1
    assert "no previous" in again.stderr and "Traceback" not in again.stderr
