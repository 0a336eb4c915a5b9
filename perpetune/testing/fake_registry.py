"""An in-memory registry."""

from __future__ import annotations

from collections.abc import Iterable

from perpetune.errors import PerpetuneError
from perpetune.model.release import DesiredReleases, Release, Trial


class FakeSource:
    """A `ReleaseSource` whose aliases are set by assignment; while `down`, every call fails.

    `refused` maps each refused version to the reason; `registered` is when the model was registered.
    """

    def __init__(
        self,
        releases: Iterable[Release] = (),
        *,
        champion: str | None = None,
        previous: str | None = None,
        trial: Trial | None = None,
    ) -> None:
        self.releases = {release.version: release for release in releases}
        self.champion_version = champion
        self.previous_version = previous
        self.trial = trial
        self.refused: dict[str, str] = {}
        self.registered = 1
        self.down = False

    def promote(self, version: str) -> None:
        """Move the aliases as a promotion does."""
        self.previous_version, self.champion_version = self.champion_version, version

    def wanted(self) -> DesiredReleases:
        self._require_up()
        return DesiredReleases(self.champion_version, self.previous_version, self.trial, self.registered)

    def fetch(self, version: str) -> Release:
        self._require_up()
        return self.releases[version]

    def refuse(self, version: str, back_to: str | None, why: str) -> None:
        self._require_up()
        self.refused[version] = why
        if self.trial and self.trial.version == version:
            self.trial = None
        if self.champion_version == version:
            self.champion_version, self.previous_version = back_to, None

    def roll_back(self) -> tuple[str, str]:
        self._require_up()
        if self.champion_version is None or self.previous_version is None:
            raise PerpetuneError("there is no previous champion", do="promote another version")
        old, self.champion_version = self.champion_version, self.previous_version
        self.previous_version = None
        return old, self.champion_version

    def _require_up(self) -> None:
        if self.down:
            raise PerpetuneError("the registry does not answer", where="memory", do="set `down` to False")
