"""Which rows of a data set are near duplicates of which, and the groups that are split together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from perpetune.curation.duplicates.canonical import Turns, canonical_turns, row_tokens
from perpetune.curation.duplicates.minhash import similar_texts
from perpetune.curation.duplicates.one_word import one_word_apart
from perpetune.curation.engine import IN_PROCESS, Engine, for_each
from perpetune.records import Example

Asked = str | Turns


@dataclass(frozen=True)
class NearDuplicates:
    """The number of each row's canonical text, by its turns, and which of these are near duplicates of one another."""

    numbers: Mapping[Asked, int] = field(default_factory=dict)
    neighbours: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def text_of(self, row: Example) -> int:
        """The number of the row's canonical text. Raises KeyError for a row that was not compared."""
        return self.numbers[_asked(row)]

    def like(self, text: int) -> frozenset[int]:
        """The texts that are near duplicates of this one."""
        return self.neighbours.get(text, frozenset())


def near_duplicates(rows: Sequence[Example], engine: Engine = IN_PROCESS) -> NearDuplicates:
    """Compare the inputs of all rows.

    Texts with one canonical form count as the same. Two texts are near duplicates if they are one word apart, or if
    most of their passages are the same. Work and memory grow with the number of rows, not of pairs.
    """
    first: dict[Asked, Example] = {}
    for row in rows:
        first.setdefault(_asked(row), row)
    different = tuple(first.values())
    numbers: dict[Asked, int] = {}
    known: dict[Turns, int] = {}
    examples: list[Example] = []
    for row, turns in zip(different, for_each(_canonical, different, engine), strict=True):
        if turns not in known:
            known[turns] = len(known)
            examples.append(row)
        numbers[_asked(row)] = known[turns]
    neighbours: dict[int, set[int]] = defaultdict(set)
    texts = ["\n".join(text for _, text in turns) for turns in known]
    del known
    for pairs in (one_word_apart(for_each(_tokens, examples, engine)), similar_texts(texts, engine)):
        for one, other in pairs:
            neighbours[one].add(other)
            neighbours[other].add(one)
    return NearDuplicates(numbers, {text: frozenset(others) for text, others in neighbours.items()})


def _canonical(rows: Sequence[Example]) -> list[Turns]:
    return [canonical_turns(row) for row in rows]


def _tokens(rows: Sequence[Example]) -> list[tuple[str, ...]]:
    return [row_tokens(row) for row in rows]


def _asked(row: Example) -> Asked:
    """What the row's canonical text is made of, which takes no work and no memory of its own if there is one turn."""
    return tuple((turn.role, turn.content) for turn in row.messages if turn.role != "system") or row.input


def stars(texts: Iterable[int], near: NearDuplicates) -> dict[int, int]:
    """The centre of each text's group: the text itself if it is in none.

    Star clustering (Aslam et al. 2004, Journal of Graph Algorithms and Applications 8:95): the text with most near
    duplicates becomes a centre and takes those that are still free. Each text is like its centre, so a chain of small
    changes does not join unlike texts as single linkage does.
    """
    free = set(texts)
    degrees = Counter({text: len(near.like(text) & free) for text in free})
    centres: dict[int, int] = {}
    for centre in sorted(free, key=lambda text: (-degrees[text], text)):
        if centre in free:
            members = {centre, *(near.like(centre) & free)}
            centres |= dict.fromkeys(members, centre)
            free -= members
    return centres
