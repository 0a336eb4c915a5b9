"""The stage before `split`: inputs that say the same in other words, so that they are split together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perpetune.curation.duplicates.by_meaning import PAIRS, Pair
from perpetune.curation.duplicates.canonical import canonical_turns
from perpetune.curation.quarantine import in_order
from perpetune.curation.running.pipeline import FOLDERS, steps_of
from perpetune.params import SemanticParams
from perpetune.quality.features import Features, features_of
from perpetune.quality.neighbours import alike
from perpetune.records import Example, read_jsonl, write_jsonl
from perpetune.workspace import Workspace

NAME = "semantic"


def semantic(
    rows: Sequence[Example], params: SemanticParams, embed: Callable[[Sequence[str]], Features]
) -> tuple[Pair, ...]:
    """Pairs of rows whose inputs mean the same, by the cosine similarity of their embeddings.

    One row of each canonical text is compared, and only those of one turn: what an answer within a conversation means
    depends on the turns before. Texts whose digits differ are forms filled in differently. TF-IDF sees words and no
    meaning, so without an encoder there are no pairs.
    """
    if params.threshold is None:
        return ()
    by_text: dict[object, Example] = {}
    for row in in_order(rows):
        turns = canonical_turns(row)
        if len(turns) == 1:
            by_text.setdefault(turns, row)
    single = list(by_text.values())
    features = embed([row.input for row in single])
    if not features.are_embeddings:
        return ()
    return tuple(
        Pair(one=(single[one].source, single[one].id), other=(single[other].source, single[other].id))
        for one, other in alike(features.vectors, params.threshold)
        if _digits(single[one].input) == _digits(single[other].input)
    )


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def run(workspace: Workspace) -> str:
    """Write `data/semantic/pairs.jsonl`."""
    params, root = workspace.params, workspace.root
    if params.semantic.threshold is None:
        write_jsonl(root / PAIRS, ())
        return "off (semantic.threshold is null)"
    before = "label_errors" if "label_errors" in steps_of(root) else "clean"
    rows = read_jsonl(root / FOLDERS[before] / "examples.jsonl", Example)
    found: list[Features] = []

    def embed(texts: Sequence[str]) -> Features:
        every_text = [row.input for row in rows]
        found.append(features_of(texts, params.evaluate.encoder, workspace.assets, workspace.home, keep=every_text))
        return found[-1]

    pairs = semantic(rows, params.semantic, embed)
    write_jsonl(root / PAIRS, pairs)
    notes = [f"; not compared, since {each.why}" for each in found if not each.are_embeddings]
    return f"{len(pairs):,} pairs of inputs mean the same{''.join(notes)}"
