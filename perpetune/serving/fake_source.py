"""A registry in memory, for tests and trials of what follows one."""

from __future__ import annotations

from collections.abc import Iterable

from perpetune.errors import PerpetuneError
from perpetune.release import Release


class FakeSource:
    """A `ReleaseSource` whose champion is set by assignment; while `down`, every call fails."""

    def __init__(self, releases: Iterable[Release] = (), *, champion: str | None = None) -> None:
        self.releases = {release.version: release for release in releases}
        self.champion_version = champion
        self.down = False

    def champion(self) -> str | None:
        self._reach()
        return self.champion_version

    def fetch(self, version: str) -> Release:
        self._reach()
        return self.releases[version]

    def _reach(self) -> None:
        if self.down:
            raise PerpetuneError("the registry does not answer", where="memory", do="set down to False")
