"""Checking that a release belongs to the engine's base model."""

from __future__ import annotations

from perpetune.errors import PerpetuneError
from perpetune.model.release import Release
from perpetune.params import BaseParams


def require_base(release: Release, base: BaseParams) -> None:
    """Raises PerpetuneError if the release belongs to another base model than the loaded one.

    Each release has variables of the chat template of its own.
    """
    if (release.base.model, release.base.revision) != (base.model, base.revision):
        raise PerpetuneError(
            f"version {release.version} needs the base model {_named(release.base)}, but {_named(base)} is loaded",
            do="restart the gateway with the params.yaml of that version",
        )


def _named(base: BaseParams) -> str:
    return f"{base.model} {base.revision}" if base.revision else base.model
