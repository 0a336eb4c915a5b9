"""The list of versions with system, score and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import metrics_of

SYSTEMS = {"tuned": "tuned", "prompted": "prompted base", "linear": "linear model", "remote": "remote model"}
MEASURED_AS = {"tuned": ("challenger",), "prompted": ("few-shot", "base"), "linear": ("linear",)}


NEWEST = 20  # versions in a list, and those with an alias


@dataclass(frozen=True)
class VersionListing:
    """A version in the list. `score` is like "98.2% (96.1% to 99.3%, n=330)", "" if it was not evaluated."""

    version: str
    aliases: tuple[str, ...]
    system: str
    score: str
    verdict: str


def list_versions(task: str) -> list[VersionListing]:
    """The newest versions and those with an alias, newest first."""
    aliases = registry.aliases_of(task)
    return [
        VersionListing(
            each.version,
            aliases.get(each.version, ()),
            system_of(each.tags),
            _score(each),
            each.tags.get("decision", "undecided"),
        )
        for each in registry.newest(task, NEWEST, aliases)[0]
    ]


def system_of(tags: Mapping[str, str]) -> str:
    """The system of a version in words; a version without the tag is tuned."""
    return SYSTEMS.get(tags.get(registry.SYSTEM, "tuned"), tags.get(registry.SYSTEM, "tuned"))


def listing(versions: Sequence[VersionListing]) -> list[str]:
    """A line for each version, and the command that promotes one."""
    if not versions:
        return ["there is no version yet: run `perpetune refresh`"]
    others = [each for each in versions if "champion" not in each.aliases]
    lines = [_line(each) for each in versions]
    if len(versions) >= NEWEST:
        lines.append("older ones: `perpetune status --all`")
    return [*lines, *([f"promote one with `perpetune promote {others[0].version} --reason '...'`"] if others else [])]


def serving_lines(versions: Sequence[VersionListing]) -> list[str]:
    """Lines on the version that serves and on the others."""
    champion = next((each for each in versions if "champion" in each.aliases), None)
    others = [each for each in versions if each is not champion]
    serving = f"serving: {_line(champion)}" if champion else "no version serves"
    if not others:
        return [serving, "there is no other version: run `perpetune refresh`"]
    return [serving, "other versions:", *listing(others)]


def _line(each: VersionListing) -> str:
    named = f" ({', '.join(each.aliases)})" if each.aliases else ""
    return ", ".join(part for part in (f"version {each.version}{named}", each.system, each.score, each.verdict) if part)


def _measured_as(version: Version) -> tuple[str, ...]:
    """The system's name in the metrics of its run; the likeliest first for versions without the tag."""
    named = version.tags.get(registry.EVALUATED_AS)
    return (named,) if named else MEASURED_AS.get(version.tags.get(registry.SYSTEM, "tuned"), ())


def _score(version: Version) -> str:
    """The score on the frozen holdout in the run that made the version."""
    metrics = metrics_of(version.run_id)
    for system in _measured_as(version):
        for metric in ("accuracy", "token_f1"):
            name = f"frozen/{system}/{metric}"
            if f"{name}_low" in metrics:
                rows = f", n={metrics['frozen/rows']:.0f}" if "frozen/rows" in metrics else ""
                return f"{metrics[name]:.1%} ({metrics[f'{name}_low']:.1%} to {metrics[f'{name}_high']:.1%}{rows})"
    return ""
