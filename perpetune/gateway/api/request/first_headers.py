"""A request's headers as a dict, which is asked for several that most requests do not have."""

from __future__ import annotations

from starlette.types import Scope


def first_headers(scope: Scope) -> dict[str, str]:
    """The first value of each header, by its name in lower case, as Starlette's `Headers` gives it."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
