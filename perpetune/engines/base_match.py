"""An engine holds one base model, and answers for versions of it alone."""

from __future__ import annotations

from perpetune.errors import PerpetuneError
from perpetune.model.release import Release
from perpetune.params import BaseParams


def require_base(release: Release, base: BaseParams) -> None:
    """Raises PerpetuneError if the release answers with another base than the one that is loaded."""
    if release.base != base:
        raise PerpetuneError(
            f"version {release.version} answers with the base {_named(release.base)}, and {_named(base)} is loaded",
            do="restart the gateway with the params.yaml of that version",
        )


def _named(base: BaseParams) -> str:
    return f"{base.model} {base.revision}" if base.revision else base.model
