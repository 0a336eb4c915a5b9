"""The releases of the workers that do not follow the registry themselves."""

from __future__ import annotations

import time
from dataclasses import replace

from perpetune.errors import PerpetuneError
from perpetune.gateway.releases.follower import ReleaseSource
from perpetune.gateway.workers.board import Board, Post
from perpetune.model.release import DesiredReleases, Release

ANSWER_SECONDS = 30.0  # in which the first worker reads the registry and loads what is new
OLD_SECONDS = 10.0  # after which a post says nothing about the registry
_LOOK_SECONDS = 0.05


class FollowingSource:
    """A `ReleaseSource` of what the first worker serves; files and changes of the registry are those of `source`."""

    def __init__(self, source: ReleaseSource, board: Board, worker: int) -> None:
        self._source = source
        self._board = board
        self._worker = worker
        self.release_error: str | None = None  # of the first worker, at the last look

    def wanted(self) -> DesiredReleases:
        """Raises PerpetuneError if the first worker has not said anything for a while: what is loaded goes on serving."""
        post = self._board.read()
        if post is None:
            raise PerpetuneError("the worker that follows the registry serves no release yet")
        silent = time.monotonic() - post.at
        if silent > OLD_SECONDS:
            raise PerpetuneError(f"the worker that follows the registry has said nothing for {silent:.0f} s")
        self.release_error = post.release_error
        if post.error:
            raise PerpetuneError(post.error)
        return post.releases

    def fetch(self, version: str) -> Release:
        """The release without golden prompts: the first worker has compared its answers to them."""
        release = self._source.fetch(version)
        return replace(release, evaluated=release.evaluated.model_copy(update={"golden": ()}))

    def refuse(self, version: str, back_to: str | None, why: str) -> None:
        self._source.refuse(version, back_to, why)

    def roll_back(self) -> tuple[str, str]:
        """Roll back in the registry; returns once the first worker serves the version, so that `wanted` names it."""
        old, restored = self._source.roll_back()
        self.wait_for_leader(champion=restored)
        return old, restored

    def wait_for_leader(self, champion: str | None = None) -> None:
        """Let the first worker read the registry now, and wait until it has, and serves `champion` if one is given.

        Raises PerpetuneError if it does not in time.
        """
        asked = self._board.ask(self._worker)
        until = time.monotonic() + ANSWER_SECONDS
        while not _has_answered(self._board.read(), asked, champion):
            if time.monotonic() > until:
                raise PerpetuneError(
                    f"the worker that follows the registry did not read it within {ANSWER_SECONDS:g} s",
                    do="see the gateway's log; it is started again if it ends",
                )
            time.sleep(_LOOK_SECONDS)


def _has_answered(post: Post | None, asked: int, champion: str | None) -> bool:
    return post is not None and post.answered >= asked and champion in (None, post.releases.champion)
