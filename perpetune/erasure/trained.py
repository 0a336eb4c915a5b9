"""Which model versions learned from an erased row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from perpetune.curation.erased import Tombstone
from perpetune.tracking import registry

ERASED = "data.erased"
"""Tag of a model version: when rows of its data were erased."""
_LEARNED_FROM = ("train.jsonl", "validation.jsonl")


@dataclass(frozen=True)
class TrainedVersion:
    """A model version whose data held an erased row. `learned` if it was trained on it, not only evaluated."""

    version: str
    data_version: str
    aliases: tuple[str, ...]
    learned: bool


def trained_versions(task: str, versions: Mapping[str, Sequence[str]]) -> list[TrainedVersion]:
    """The registered versions with one of these data versions, newest first."""
    found = [each for each in registry.versions(task) if each.tags.get("data.version", "") in versions]
    aliases = registry.aliases_of(task) if found else {}
    return [
        TrainedVersion(
            each.version,
            each.tags["data.version"],
            aliases.get(each.version, ()),
            any(name in _LEARNED_FROM for name in versions[each.tags["data.version"]]),
        )
        for each in found
    ]


def mark(task: str, found: Iterable[TrainedVersion], stone: Tombstone) -> None:
    """Tag the versions in MLflow, so that whoever sees one knows."""
    for each in found:
        registry.tag_version(task, each.version, {ERASED: f"{stone.rows} rows on {stone.day}"})
