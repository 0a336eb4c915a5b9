"""Paths of the release API: check the registry now, and roll back."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from perpetune.errors import PerpetuneError
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.releases.follower import Follower, FollowerState


class ReleaseState(BaseModel):
    """The serving version, the registry's champion, the trial; `release` is "ok" or an error message."""

    serving: str | None
    champion: str | None
    trial: str | None
    release: str


class RollbackRequest(BaseModel):
    reason: str = "requested over the API"


def add_release_paths(app: FastAPI, follower: Follower, errors: dict[int | str, dict[str, Any]]) -> None:
    """Add `POST /v1/release/check` and `POST /v1/release/rollback`; `errors` are their OpenAPI error responses."""

    @app.post("/v1/release/check", responses=errors)
    async def check_release() -> ReleaseState:
        """Follow the registry's aliases now. Returns when new requests go to the champion, or it failed to load."""
        return release_state(await follower.refresh_now())

    @app.post("/v1/release/rollback", responses=errors)
    async def roll_back(request: RollbackRequest) -> dict[str, object]:
        """Make the previous champion champion again, in the registry and here. Returns the time that it took."""
        try:
            done = await follower.roll_back(request.reason)
        except PerpetuneError as fault:
            raise ApiError(409, str(fault), code="nothing_to_roll_back") from None
        return {"from": done.rolled_back, "to": done.restored, "seconds": round(done.seconds, 4)}


def release_state(state: FollowerState) -> ReleaseState:
    return ReleaseState(
        serving=state.serving,
        champion=state.champion,
        trial=state.trial,
        release=state.release_error or state.registry_error or "ok",
    )
