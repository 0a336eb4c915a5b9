"""The gateway's own paths: look at the registry now, and go back to the previous champion."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from perpetune.errors import PerpetuneError
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.releases.follower import Follower, FollowerState


class ReleaseState(BaseModel):
    """What answers, what the registry names, what is on trial; `release` is "ok" or says what is wrong."""

    serving: str | None
    champion: str | None
    trial: str | None
    release: str


class RollbackRequest(BaseModel):
    reason: str = "somebody asked for it"


def add_release_paths(app: FastAPI, follower: Follower, errors: dict[int | str, dict[str, Any]]) -> None:
    """Add `POST /v1/release/check` and `POST /v1/release/rollback`; `errors` describes what else they answer."""

    @app.post("/v1/release/check", responses=errors)
    async def check_release() -> ReleaseState:
        """Follow the aliases at once; returns when new requests go where they point, or could not."""
        return release_state(await follower.refresh_now())

    @app.post("/v1/release/rollback", responses=errors)
    async def roll_back(request: RollbackRequest) -> dict[str, object]:
        """Make the previous champion champion again, in the registry and here, and say how long that took."""
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
        release=state.release_trouble or state.registry_trouble or "ok",
    )
