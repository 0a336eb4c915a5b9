"""Names of the Prefect events of the loop."""

from __future__ import annotations

DECAYED = "perpetune.model.decayed"
"""The champion has decayed and a refresh is due: the automation of `refresh/TASK` starts it. Payload: `reason`,
`version`.
"""
CHECK_FAILED = "perpetune.model.check_failed"
"""A check of the monitor ended without a verdict: an input was missing, or a service failed. Payload: `reason`."""
LABELS_WANTED = "perpetune.model.labels_wanted"
"""A check has asked for labels (`perpetune labels`). Payload: `reason`, `version`, `labels` (how many)."""
REFRESHED = "perpetune.model.refreshed"
"""A refresh has ended with a verdict. Payload: `version`, `outcome`, `trigger`."""
UNCHANGED = "perpetune.model.unchanged"
"""A refresh ended before training: data, settings and champion are those of the last one. Payload: `reason`,
`trigger`.
"""
WAITING = "perpetune.model.waiting"
"""A promotion waits for a person. Payload: `version`, `reason`, `hours`, `flow_run_id`, `page`."""
TRIAL = "perpetune.model.trial"
"""A canary or shadow trial has begun: the automation of `trial/TASK` judges it. Payload: `version`, `strategy`,
`share`.
"""
PROMOTED = "perpetune.model.promoted"
"""A version may take over: by the gate, an approval, a trial or `perpetune promote`. Payload: `version`, `outcome`,
`reason`.
"""
REJECTED = "perpetune.model.rejected"
"""A version may not take over. Payload: `version`, `outcome`, `reason`."""
ABORTED = "perpetune.model.aborted"
"""A trial has ended against the challenger. Payload: `version`, `outcome`, `reason`."""
DEPLOYED = "perpetune.model.deployed"
"""The gateway serves another version. Payload: `version`, `previous`."""
ROLLED_BACK = "perpetune.model.rolled_back"
"""The previous champion serves again. Payload: `version` (the one that went), `restored`, `reason`."""
OVER_BUDGET = "perpetune.model.over_budget"
"""Decay was found, and the budget of training hours is used up. Payload: `reason`, `version`."""
DISK_LOW = "perpetune.model.disk_low"
"""The disk of the workspace is nearly full. Payload: `reason`."""
ALERT_TEST = "perpetune.model.alert_test"
"""`perpetune alerts test` was run. Payload: `reason`."""


def resource(task: str) -> dict[str, str]:
    """The Prefect resource of the task's model."""
    return {"prefect.resource.id": f"perpetune.model.{task}", "prefect.resource.name": task}
