"""The anchor: the best version that ever served, which small losses in a row must not lead away from.

Each refresh may lose up to the margin against the champion. Against the anchor the losses add up and are seen. See
docs/decisions/0029-an-anchor-against-small-losses.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from perpetune.evaluation.evaluate import Evaluation
from perpetune.evaluation.evidence import paired_evidence
from perpetune.evaluation.slices import Slice
from perpetune.loop.watch.reference import answers
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.policy.promotion.evidence import Anchor
from perpetune.tracking import registry
from perpetune.tracking.registry import Version

Scores = Mapping[str, float]  # by the id of a frozen row


def anchor_of(
    task: str, frozen: Evaluation, folder: Path, params: EvaluateParams, rules: PromoteParams
) -> Anchor | None:
    """The challenger against the anchor on the frozen rows that the anchor has answered; None if it is the champion.

    Released versions are gone through in order: one that is shown to be better than the anchor of before takes its place.
    """
    champion = registry.find(task, "champion")
    released = [each for each in registry.versions(task) if _served(each)]
    known = {
        each.version: _scores(each, frozen, folder) for each in sorted(released, key=lambda each: int(each.version))
    }
    anchor = best_of({version: scores for version, scores in known.items() if scores}, params, rules)
    if anchor is None or (champion is not None and anchor == champion.version):
        return None
    challenger, rows = frozen.scored["challenger"], {row.id: row for row in frozen.rows}
    texts = zip(challenger.ids, challenger.texts, strict=True)
    ours = {name: frozen.gate_score(rows[name], text) for name, text in texts}
    common = sorted(set(known[anchor]) & set(ours))
    if not common:
        return None
    scores = _common(known[anchor], ours, common)
    return Anchor(anchor, paired_evidence(scores, params, rules))


def best_of(known: Mapping[str, Scores], params: EvaluateParams, rules: PromoteParams) -> str | None:
    """The version that no later one is shown to be better than, on the rows that both have answered."""
    anchor: str | None = None
    for version, scores in known.items():
        if anchor is None:
            anchor = version
            continue
        common = sorted(set(known[anchor]) & set(scores))
        if common:
            found = paired_evidence(_common(known[anchor], scores, common), params, rules)
            if found.difference > 0 and found.p_value < rules.alpha:
                anchor = version
    return anchor


def _common(theirs: Scores, ours: Scores, ids: Sequence[str]) -> Slice:
    return Slice(tuple(theirs[name] for name in ids), tuple(ours[name] for name in ids))


def _served(version: Version) -> bool:
    """Whether it was champion and not rolled back."""
    return version.tags.get(registry.STATE) in ("released", "promoted")


def _scores(version: Version, frozen: Evaluation, folder: Path) -> dict[str, float]:
    """Its recorded answers to the frozen rows, scored by the labels of now."""
    system = version.tags.get(registry.EVALUATED_AS, "challenger")
    outputs = {each.id: each.output for each in answers(version.run_id, system, folder) if each.holdout == "frozen"}
    return {row.id: frozen.gate_score(row, outputs[row.id]) for row in frozen.rows if row.id in outputs}
