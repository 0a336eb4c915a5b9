"""All versions with what people choose by: the system, its score when it was evaluated, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import metrics_of

SYSTEMS = {"tuned": "tuned", "prompted": "prompted base", "linear": "linear model", "remote": "remote model"}
MEASURED_AS = {"tuned": ("challenger",), "prompted": ("few-shot", "base"), "linear": ("linear",)}


@dataclass(frozen=True)
class VersionListing:
    """A version, its aliases, how it answers, and "98.2% (96.1% to 99.3%, n=330)" or "" where it has no score."""

    version: str
    aliases: tuple[str, ...]
    system: str
    score: str
    verdict: str


def list_versions(task: str) -> list[VersionListing]:
    """Every version, newest first."""
    aliases = registry.aliases_of(task)
    return [
        VersionListing(
            each.version,
            aliases.get(each.version, ()),
            system_of(each.tags),
            _score(each),
            each.tags.get("decision", "undecided"),
        )
        for each in registry.versions(task)
    ]


def system_of(tags: Mapping[str, str]) -> str:
    """How a version answers, in words; those from before there were several are tuned."""
    return SYSTEMS.get(tags.get(registry.SYSTEM, "tuned"), tags.get(registry.SYSTEM, "tuned"))


def listing(versions: Sequence[VersionListing]) -> list[str]:
    """A line for each, and the command that has one serve."""
    if not versions:
        return ["there is no version yet: `perpetune refresh` makes one"]
    others = [each for each in versions if "champion" not in each.aliases]
    lines = [_line(each) for each in versions]
    return [*lines, *([f"`perpetune promote {others[0].version} --reason '...'` has one serve"] if others else [])]


def serving_lines(versions: Sequence[VersionListing]) -> list[str]:
    """What serves, and what else could."""
    champion = next((each for each in versions if "champion" in each.aliases), None)
    others = [each for each in versions if each is not champion]
    serving = f"{_line(champion)} serves" if champion else "nothing serves"
    if not others:
        return [serving, "there is no other version: `perpetune refresh` makes one"]
    return [serving, "these could:", *listing(others)]


def _line(each: VersionListing) -> str:
    named = f" ({', '.join(each.aliases)})" if each.aliases else ""
    return ", ".join(part for part in (f"version {each.version}{named}", each.system, each.score, each.verdict) if part)


def _measured_as(version: Version) -> tuple[str, ...]:
    """Under which name its scores stand in its run, the likeliest first for versions that do not say so."""
    named = version.tags.get(registry.EVALUATED_AS)
    return (named,) if named else MEASURED_AS.get(version.tags.get(registry.SYSTEM, "tuned"), ())


def _score(version: Version) -> str:
    """On the frozen holdout of the run that made it."""
    metrics = metrics_of(version.run_id)
    for system in _measured_as(version):
        for metric in ("accuracy", "token_f1"):
            name = f"frozen/{system}/{metric}"
            if f"{name}_low" in metrics:
                rows = f", n={metrics['frozen/rows']:.0f}" if "frozen/rows" in metrics else ""
                return f"{metrics[name]:.1%} ({metrics[f'{name}_low']:.1%} to {metrics[f'{name}_high']:.1%}{rows})"
    return ""
