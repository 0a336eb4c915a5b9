"""What people and schedules do meanwhile: checks, refreshes, promotions, rollbacks, approvals, retention."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos import task
from chaos.world import World
from perpetune.errors import PerpetuneError
from perpetune.loop.approve import waiting_version
from perpetune.runtime.prefect_api import FlowRun
from perpetune.tracking import registry
from perpetune.tracking.runs import MlflowError

FLOW_SECONDS, COMMAND_SECONDS = 300.0, 120.0
_BEGUN = ("PENDING", "RUNNING")  # the worker has taken it


@dataclass
class Operations:
    """`runs` are all flow runs that were started, to be looked at in the end."""

    world: World
    draw: random.Random
    runs: list[FlowRun] = field(default_factory=list)

    def choose(self) -> str:
        """The name of one of them; approvals if a version waits."""
        try:
            waits = waiting_version(self.world.workspace) is not None
        except (PerpetuneError, MlflowError):  # still recovering from the round before
            waits = False
        usual = ["watch", "watch", "refresh", "promote", "rollback", "retention"]
        return self.draw.choice([*usual, "approve", "approve", "refuse"] if waits else usual)

    def run(self, name: str, over: Callable[[], bool]) -> str:
        """How it ended. A flow run that nothing works on, as after a kill, is not waited for once `over`."""
        try:
            return self._run(name, over)
        except (PerpetuneError, MlflowError) as fault:  # what it needed was broken
            return f"not begun: {str(fault)[:60]}"

    def _run(self, name: str, over: Callable[[], bool]) -> str:
        match name:
            case "watch" | "retention":
                return self._flow(name, {"trigger": "manual"}, over)
            case "refresh":
                return self._flow(name, {"trigger": "manual", "again": True}, over)
            case "promote":
                return self._promote()
            case "rollback":
                return self._command("rollback", "--reason", "chaos", *self.draw.choice([(), ("--force",)]))
            case _:
                refuse = ("--refuse",) if name == "refuse" else ()
                waiting = waiting_version(self.world.workspace)
                version = waiting.version if waiting else "1"
                return self._command("approve", version, "--comment", "chaos", "--by", "ann", *refuse)

    def _flow(self, name: str, parameters: dict[str, object], over: Callable[[], bool]) -> str:
        prefect = self.world.prefect
        try:
            run = prefect.start(f"{name}/{task.NAME}", parameters)
        except PerpetuneError:
            return "not started"
        self.runs.append(run)
        deadline = time.monotonic() + FLOW_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1)
            try:
                run = prefect.check(run)
            except PerpetuneError:
                continue
            if run.final or (over() and not self.world.processes["worker"].children() and run.state in _BEGUN):
                break
        return run.state.lower()

    def _promote(self) -> str:
        known = registry.versions(task.NAME)
        champion = registry.find(task.NAME, "champion")
        others = [each.version for each in known if champion is None or each.version != champion.version]
        if not others:
            return "nothing to promote"
        return self._command("promote", self.draw.choice(others), "--reason", "chaos")

    def _command(self, *words: str) -> str:
        """`perpetune` in a process of its own, through the proxies."""
        script = "from perpetune.cli import app; app()"
        try:
            ended = subprocess.run(
                [sys.executable, "-c", script, *words],
                cwd=self.world.workspace.root,
                env=dict(self.world.environment),
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return "killed: too slow"
        return "done" if ended.returncode == 0 else f"refused: {_last(ended.stdout + ended.stderr)}"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:100] if lines else "no word"
