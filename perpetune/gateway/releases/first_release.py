"""A release source that creates the first champion of a task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from perpetune.gateway.releases.follower import ReleaseSource
from perpetune.model.release import DesiredReleases, Release

SECONDS_BETWEEN_TRIES = 30.0  # every failed try leaves a run in MLflow

_one_at_a_time = threading.Lock()  # MLflow keeps a model that it logs from code in a variable of the process


class BootstrappingSource:
    """A `ReleaseSource` that calls `make_first` if `source` has no champion."""

    def __init__(self, source: ReleaseSource, make_first: Callable[[], object]) -> None:
        self._source = source
        self._make_first = make_first
        self._next_try = 0.0

    def wanted(self) -> DesiredReleases:
        wanted = self._source.wanted()
        if wanted.champion is not None or time.monotonic() < self._next_try:
            return wanted
        self._next_try = time.monotonic() + SECONDS_BETWEEN_TRIES
        with _one_at_a_time:
            self._make_first()
        return self._source.wanted()

    def fetch(self, version: str) -> Release:
        return self._source.fetch(version)

    def refuse(self, version: str, back_to: str | None, why: str) -> None:
        self._source.refuse(version, back_to, why)

    def roll_back(self) -> tuple[str, str]:
        return self._source.roll_back()
