"""The automations of a task that tell people, and the one that ends runs whose process has died."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, CancelFlowRun, ChangeFlowRunState, EventTrigger, Posture, SendNotification
from prefect.settings import get_current_settings
from pydantic import SecretStr

from perpetune.flows.alerting.channel import channels
from perpetune.params import LimitsParams
from perpetune.runtime.alerts import alert_prefix
from perpetune.runtime.events import (
    ABORTED,
    ALERT_TEST,
    CHECK_FAILED,
    DECAYED,
    DISK_LOW,
    LABELS_WANTED,
    OVER_BUDGET,
    REJECTED,
    ROLLED_BACK,
    WAITING,
    resource,
)

AT_ONCE, DAILY = timedelta(0), timedelta(days=1)
_ENDED = tuple(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut"))
HEARTBEAT = "prefect.flow-run.heartbeat"
MISSED = 3  # heartbeats in a row that must be missing
TRIES, OTHER_TASKS = 3, 12  # of a task, at most; tasks of a refresh that are neither curation, training nor evaluation


@dataclass(frozen=True)
class Alert:
    """What is told of the model: `every` is the least time between two alerts of the same kind, if it goes on."""

    name: str
    events: tuple[str, ...]
    subject: str
    every: timedelta = AT_ONCE


ALERTS = (
    Alert("decay", (DECAYED,), "has decayed", DAILY),
    Alert("rollback", (ROLLED_BACK,), "was rolled back"),
    Alert("rejected", (REJECTED, ABORTED), "keeps its version: the new one was rejected"),
    Alert("labels wanted", (LABELS_WANTED,), "wants labels", DAILY),
    Alert("approval wanted", (WAITING,), "waits for an approval"),
    Alert("blind monitor", (CHECK_FAILED,), "cannot be checked", DAILY),
    Alert("disk", (DISK_LOW,), "runs out of disk", DAILY),
    Alert("budget", (OVER_BUDGET,), "has used up its training budget", DAILY),
    Alert("test", (ALERT_TEST,), "tests its alerts"),
)


def register_alerts(task: str, wanted: SecretStr | None, limits: LimitsParams) -> int:
    """Register the automations of a task with Prefect, and delete those of settings before; the number of channels.

    Raises PerpetuneError if a channel is not usable.
    """
    blocks = channels(wanted, task)
    ends = [
        _end_of_dead_runs(task),
        *(_end_of_hung_runs(task, flow, hours) for flow, hours in longest_runs(limits).items()),
    ]
    automations = [*ends, *(_alerts(task, blocks) if blocks else [])]
    names = {each.name for each in automations}
    with get_client(sync_client=True) as client:
        before = {each.name: each for each in client.read_automations() if each.name.startswith(alert_prefix(task))}
        for name in before.keys() - names:
            client.delete_automation(before[name].id)
        for each in automations:
            found = before.get(each.name)
            if found is not None and _content(found) == _content(each):
                continue  # a change would make Prefect forget what it has seen of the runs under way
            if found is not None:  # Prefect's client updates without the types of actions, which become none
                client.delete_automation(found.id)
            client.create_automation(each)
    return len(blocks)


def _content(automation: AutomationCore) -> dict[str, object]:
    """What it does, without what Prefect adds."""
    return automation.model_dump(include=set(AutomationCore.model_fields))


def _alerts(task: str, blocks: Sequence[UUID]) -> list[AutomationCore]:
    model = [
        _alert(
            task,
            each.name,
            EventTrigger(
                expect=set(each.events),
                match={"prefect.resource.id": resource(task)["prefect.resource.id"]},
                posture=Posture.Reactive,
                threshold=1,
                within=each.every,
            ),
            f"{task} {each.subject}",
            "{{ event.payload.reason }}\n{{ event.payload.page or event|ui_url }}",
            blocks,
        )
        for each in ALERTS
    ]
    runs = [
        _alert(
            task,
            name,
            EventTrigger(
                expect={f"prefect.flow-run.{state}" for state in states},
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related=_of_deployments(task),
                posture=Posture.Reactive,
                threshold=1,
                within=AT_ONCE,
            ),
            f"{task}: {{{{ flow.name }}}} {subject}",
            "{{ flow_run.name }} is {{ flow_run.state.name }}: {{ flow_run.state.message or 'no message' }}\n"
            "{{ flow_run|ui_url }}",
            blocks,
        )
        for name, states, subject in (
            ("failed run", ("Failed", "Crashed", "TimedOut"), "failed"),
            ("hung run", ("Cancelling",), "was cancelled, as a run that hangs is"),
            ("late run", ("Late",), "did not start in time"),
        )
    ]
    return [*model, *runs]


def _alert(
    task: str, name: str, trigger: EventTrigger, subject: str, body: str, blocks: Sequence[UUID]
) -> AutomationCore:
    return AutomationCore(
        name=f"{alert_prefix(task)}{name}",
        description="Tells people. Registered by perpetune from PERPETUNE_ALERTS; changes here are lost.",
        trigger=trigger,
        actions=[SendNotification(block_document_id=block, subject=subject, body=body) for block in blocks],
    )


def _end_of_dead_runs(task: str) -> AutomationCore:
    """Crash a run of the task's deployments whose heartbeats stop: its process was killed, or its machine died.

    A run that waits for an approval is suspended: it has no process and no heartbeats, so it may wait for long.
    """
    frequency = get_current_settings().flows.heartbeat_frequency or 0
    silence = timedelta(seconds=MISSED * frequency)
    return AutomationCore(
        name=f"{alert_prefix(task)}end of dead runs",
        description="Crashes a run whose process has died. Registered by perpetune; changes here are lost.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *_ENDED},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_deployments(task),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=max(silence, timedelta(minutes=1)),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"its process has not been heard of for {silence.total_seconds() / 60:.0f} minutes",
            )
        ],
        enabled=frequency > 0,
    )


def longest_runs(limits: LimitsParams) -> dict[str, float]:
    """The hours after which a run of each flow is cancelled: more than its tasks may take with their retries."""
    other = OTHER_TASKS * limits.other_minutes / 60
    check = TRIES * limits.check_hours + other
    refresh = TRIES * (limits.curate_hours + limits.train_hours + limits.evaluate_hours) + other
    return {
        "watch": check,
        "refresh": refresh,
        "trial": 24 * limits.trial_days + other,
        "approval": other,
        "retention": other,
    }


def _end_of_hung_runs(task: str, flow: str, hours: float) -> AutomationCore:
    """Cancel a run that outlives the limits of its tasks: it hangs in native code, where Prefect cannot raise an error.

    The worker then kills its process.
    """
    return AutomationCore(
        name=f"{alert_prefix(task)}end of hung runs of {flow}",
        description="Cancels a run that hangs (limits in params.yaml). Registered by perpetune; changes here are lost.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Running"},
            expect=set(_ENDED),
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=[_of_deployments(task), {"prefect.resource.role": "flow", "prefect.resource.name": flow}],
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(hours=hours),
        ),
        actions=[CancelFlowRun()],
    )


def _of_deployments(task: str) -> dict[str, str | list[str]]:
    return {"prefect.resource.role": "deployment", "prefect.resource.name": task}
