"""Which rows of a data set are near duplicates of which, and the groups that are split together."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perpetune.curation.duplicates.minhash import similar_texts
from perpetune.curation.duplicates.one_word import Neighbourhoods
from perpetune.curation.duplicates.readings import Readings, readings_of
from perpetune.curation.duplicates.shared_keys import Keys, components
from perpetune.curation.running.engine import IN_PROCESS, Engine, for_each
from perpetune.records import Example

Asked = str | tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class NearDuplicates:
    """The number of each row's text, by its turns, and which of these are near duplicates of one another."""

    numbers: Mapping[Asked, int] = field(default_factory=dict)
    neighbours: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def text_of(self, row: Example) -> int:
        """The number of the row's text. Raises KeyError for a row that was not compared."""
        return self.numbers[_asked(row)]

    def like(self, text: int) -> frozenset[int]:
        """The texts that are near duplicates of this one."""
        return self.neighbours.get(text, frozenset())


def near_duplicates(rows: Sequence[Example], engine: Engine = IN_PROCESS) -> NearDuplicates:
    """Compare the inputs of all rows.

    Texts that share a reading count as the same. Two texts are near duplicates if they are one word apart, but for a
    short clause at the beginning or the end, or if most of their passages are the same. Work and memory grow with the
    number of rows, not of pairs.
    """
    first: dict[Asked, Example] = {}
    for row in rows:
        first.setdefault(_asked(row), row)
    found = _Found()
    for readings in for_each(readings_of, tuple(first.values()), engine):
        found.add(readings)
    texts = found.texts()
    neighbours: dict[int, set[int]] = defaultdict(set)
    for one, other in found.pairs(texts, engine):
        if one != other:
            neighbours[one].add(other)
            neighbours[other].add(one)
    numbers = dict(zip(first, texts.tolist(), strict=True))
    return NearDuplicates(numbers, {text: frozenset(others) for text, others in neighbours.items()})


class _Found:
    """The readings of all rows, in arrays: what is compared, and the numbers of the rows."""

    def __init__(self) -> None:
        self._rows = 0
        self._seen: set[int] = set()
        self._sure = Keys()
        self._loose = Keys()
        self._words = Neighbourhoods()
        self._letters: list[str] = []
        self._owners = array("i")

    def add(self, readings: Readings) -> None:
        self._sure.add(readings.sure, self._rows)
        self._loose.add(readings.loose, self._rows)
        if readings.main not in self._seen:
            self._seen.add(readings.main)
            for words in readings.words:
                self._words.add(words, self._rows)
            self._letters += readings.letters
            self._owners.extend([self._rows] * len(readings.letters))
        self._rows += 1

    def texts(self) -> NDArray[np.int32]:
        """The number of each row's text. Rows that share a reading have the same one."""
        return components(self._sure, self._rows)

    def pairs(self, texts: NDArray[np.int32], engine: Engine) -> Iterator[tuple[int, int]]:
        """The numbers of texts that are near duplicates of each other; a pair may come twice."""
        yield from ((int(texts[one]), int(texts[other])) for one, other in self._loose.found_among(self._sure))
        yield from self._words.pairs(texts)
        owners = texts[np.asarray(self._owners)]
        for one, other in similar_texts(self._letters, engine):
            yield int(owners[one]), int(owners[other])


def _asked(row: Example) -> Asked:
    """What the row's text is made of, which takes no work and no memory of its own if there is one turn."""
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
