"""Old module names: importing one gives the renamed module.

Models that MLflow stored earlier import them, and compose files and launchers start them with `python -m`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

RENAMED = {
    "perpetune.answer": "perpetune.generation.answer",
    "perpetune.inference.answers": "perpetune.inference.predictor",
    "perpetune.linear": "perpetune.classifiers.linear",
    "perpetune.orchestrator": "perpetune.runtime.prefect_api",
    "perpetune.pyfunc": "perpetune.tracking.logged_model",
    "perpetune.registry": "perpetune.tracking.registry",
    "perpetune.release": "perpetune.model.release",
    "perpetune.serving": "perpetune.gateway",
    "perpetune.serving.log": "perpetune.prediction_log.database",
    "perpetune.serving.migrations": "perpetune.prediction_log.migrations",
    "perpetune.serving.remote_engine": "perpetune.engines.remote_engine",
    "perpetune.serving.tables": "perpetune.prediction_log.tables",
}
# Names inside them that had another name.
ATTRIBUTES = {
    "perpetune.engines.remote_engine": {"ask_remote": "remote_answers"},
    "perpetune.inference.predictor": {"Answerer": "Predictor", "load_answerer": "load_predictor"},
    "perpetune.model.release": {"Evaluated": "ServingFacts"},
}


class _Alias(Loader):
    """Loads the renamed module under its old name."""

    def __init__(self, name: str) -> None:
        self._spec = find_spec(name)
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self.name)
        for old, new in ATTRIBUTES.get(self.name, {}).items():
            setattr(module, old, getattr(module, new))
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importlib set the old name's spec

    def get_code(self, fullname: str) -> CodeType:
        """The code that `python -m` runs."""
        loader = self._spec.loader if self._spec is not None else None
        return loader.get_code(self.name)  # type: ignore[union-attr,no-any-return]


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = new_name(fullname)
        if new is None:
            return None
        found = find_spec(new)
        return ModuleSpec(
            fullname, _Alias(new), is_package=found is not None and bool(found.submodule_search_locations)
        )


def new_name(old: str) -> str | None:
    """The new name of a renamed module or of a module below it; None if it was not renamed."""
    for length in range(old.count("."), 0, -1):
        parts = old.split(".")
        if (new := RENAMED.get(".".join(parts[: length + 1]))) is not None:
            return ".".join([new, *parts[length + 1 :]])
    return None


def install_aliases() -> None:
    """Add the finder of old names, last in sys.meta_path, so that other imports cost nothing more."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
