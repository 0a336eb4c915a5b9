"""What the /readyz of a gateway says of one task, whether it serves that alone or several."""

from __future__ import annotations

from collections.abc import Mapping


def state_of_task(state: Mapping[str, object], task: str) -> Mapping[str, object]:
    """The state of the task, or of the tasks that the gateway serves instead, under the keys of a gateway of one."""
    tasks = state.get("tasks")
    if not isinstance(tasks, Mapping):
        return state
    found = tasks.get(task)
    if isinstance(found, Mapping):
        return found
    names, why = " and ".join(map(str, tasks)), f"it does not serve {task}"
    return {"task": names, "serving": None, "ready": False, "release": why, "registry": "ok", "log": "ok"}
