"""Keep personal data and secrets out of training rows: stable placeholders instead, so that the task can still be learned."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from perpetune.curation.quarantine import Changed, Quarantined, StepResult, combined, in_order
from perpetune.curation.repairing.fixpoint import until_stable
from perpetune.curation.rows.texts import changes, texts, with_group_of
from perpetune.curation.running.engine import IN_PROCESS, Engine, batched
from perpetune.curation.running.pipeline import input_of
from perpetune.curation.steps.step_files import write_batches
from perpetune.errors import PerpetuneError
from perpetune.params import PrivateParams, TaskParams
from perpetune.records import Example, StoredRecords
from perpetune.redacting import person_names
from perpetune.redacting.found import Found
from perpetune.redacting.personal_data import Find, personal_data_finder
from perpetune.redacting.replacer import Replacer, patterns_finder

_NUMBERED = re.compile(r"<([A-Z][A-Z_]*)_(\d+)>")
_UNSPELLED = re.compile(r"[\W_]+")
_HIDDEN = "█"


class Placeholders:
    """The placeholders of one group of rows: `<EMAIL_ADDRESS_2>` is the second e-mail address in it, wherever it stands.

    Not of the whole data set: a row would change when others are added, and a model would learn numbers that say nothing.
    Numbers that the rows use already are not given again.
    """

    def __init__(self, used: Iterable[tuple[str, int]] = ()) -> None:
        self.kinds: Counter[str] = Counter()
        self._numbers: dict[tuple[str, str], int] = {}
        self._used: dict[str, set[int]] = defaultdict(set)
        for kind, number in used:
            self._used[kind].add(number)

    def __call__(self, kind: str, value: str) -> str:
        self.kinds[kind] += 1
        key = kind, _UNSPELLED.sub("", value.casefold()) or value
        if key not in self._numbers:
            used = self._used[kind]
            self._numbers[key] = next(number for number in range(1, len(used) + 2) if number not in used)
            used.add(self._numbers[key])
        return f"<{kind}_{self._numbers[key]}>"


def private(
    examples: Iterable[Example], params: PrivateParams, task: TaskParams, find: Find, engine: Engine = IN_PROCESS
) -> StepResult:
    """Replace what `find` finds in inputs and outputs, or with mode `report` only report it; no row is quarantined.

    The same value has the same placeholder in all rows of a group: what the output copies from the input is still a copy.
    Labels of a classification stay. What is changed or reported is written down without the values themselves.
    """
    return combined(replaced(in_order(examples), params, task, find, engine))


def replaced(
    rows: Collection[Example], params: PrivateParams, task: TaskParams, find: Find, engine: Engine = IN_PROCESS
) -> Iterator[StepResult]:
    """As `private`, for rows in canonical order, which are read twice; the results of their batches.

    `engine` runs `find`, which takes nearly all the time. Numbers are given here, in the order of the rows.
    """
    if params.mode == "off":
        yield from (StepResult(batch, ()) for batch in batched(rows))
        return
    labelled, find = task.kind == "classification", _but(find, params.allow)
    groups = _placeholders_in_use(rows)
    for batch in engine.batches(partial(_searched, find=find, labelled=labelled), rows):
        yield _result(batch, groups, find, params, labelled=labelled)


_Searched = tuple[Example, Mapping[str, Sequence[Found]] | None]
"""A row, and what was found in each text of it; None if there is nothing to replace."""


def _placeholders_in_use(rows: Iterable[Example]) -> dict[str, Placeholders]:
    """By group, if its rows have placeholders already."""
    used: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in rows:
        for _, text in texts(row):
            if "<" in text and (found := _NUMBERED.findall(text)):
                used[row.group].update((kind, int(number)) for kind, number in found)
    return {group: Placeholders(numbers) for group, numbers in used.items()}


def _searched(rows: Sequence[Example], find: Find, labelled: bool) -> list[_Searched]:
    return [_searched_row(row, find, labelled) for row in rows]


def _searched_row(row: Example, find: Find, labelled: bool) -> _Searched:
    """The row is given placeholders as if it were alone in its group, because what is in them is searched too."""
    known: dict[str, Sequence[Found]] = {}

    def search(text: str) -> Sequence[Found]:
        known[text] = tuple(find(text))
        return known[text]

    clean = _with_placeholders(row, Replacer(search, Placeholders()), labelled=labelled)
    return row, None if clean is row else known


def _result(
    batch: Sequence[_Searched], groups: dict[str, Placeholders], find: Find, params: PrivateParams, *, labelled: bool
) -> StepResult:
    kept: list[Example] = []
    changed: list[Changed] = []
    reported: list[Quarantined] = []
    for row, known in batch:
        if known is None:
            kept.append(row)
            continue
        search = _remembered(known, find)
        placeholders = groups.setdefault(row.group, Placeholders())
        placeholders.kinds.clear()
        clean = _with_placeholders(row, Replacer(search, placeholders), labelled=labelled)
        if params.mode == "report":
            kept.append(row)
            reported += [Quarantined(reason=kind, example=clean) for kind in sorted(placeholders.kinds)]
        else:
            kept.append(clean)
            changed += _hidden_changes(row, clean, search)
    return StepResult(tuple(kept), (), tuple(changed), tuple(reported))


def _remembered(known: Mapping[str, Sequence[Found]], find: Find) -> Find:
    """What was found in a text, or what is found now in one that was not searched."""

    def found(text: str) -> Iterable[Found]:
        return known[text] if text in known else find(text)

    return found


def finder(params: PrivateParams) -> Find:
    """What the settings look for: a function that other machines can import.

    Raises PerpetuneError if it is to be replaced and what finds it is not installed.
    """
    _finder(params)
    return partial(_found_in, params=params)


def _found_in(text: str, params: PrivateParams) -> Iterable[Found]:
    return _finder(params)(text)


@lru_cache(maxsize=1)
def _finder(params: PrivateParams) -> Find:
    has_presidio = importlib.util.find_spec("presidio_analyzer") is not None
    if not has_presidio and params.mode == "replace":
        raise PerpetuneError(
            "private.mode is replace, but Presidio is not installed",
            where="params.yaml",
            do="pip install 'perpetune[redact]', or set private.mode: report",
        )
    find = patterns_finder(_personal_data if has_presidio else None)
    return _both(find, person_names.names_finder(params.spacy_model)) if _are_names_found(params) else find


def _personal_data(text: str) -> Iterable[Found]:
    return _presidio()(text)


@lru_cache(maxsize=1)
def _presidio() -> Find:
    """Imported, which takes seconds, with the first text in which it could find anything."""
    return personal_data_finder()


def hidden(find: Find) -> Callable[[str], str]:
    """A function that blackens what is found in a text."""
    return Replacer(find, lambda _, value: _HIDDEN * len(value)).text


def _are_names_found(params: PrivateParams) -> bool:
    installed = params.names != "off" and person_names.is_installed(params.spacy_model)
    if params.names == "on" and not installed:
        raise PerpetuneError(
            f"private.names is on, but spaCy's model {params.spacy_model} is not installed",
            where="params.yaml",
            do=f"python -m spacy download {params.spacy_model}, or set private.names: off",
        )
    return installed and (params.names == "on" or params.mode == "replace")


def _with_placeholders(row: Example, replacer: Replacer, *, labelled: bool) -> Example:
    messages = tuple(until_stable(replacer.message, turn) for turn in row.messages)
    input = until_stable(replacer.text, row.input)
    output = row.output if labelled else until_stable(replacer.written, row.output)
    references = row.references if labelled else tuple(until_stable(replacer.written, each) for each in row.references)
    new = {
        "messages": messages,
        "input": input,
        "output": output,
        "references": references,
        "said": until_stable(replacer.text, row.said),
    }
    if all(getattr(row, name) == value for name, value in new.items()):
        return row
    return with_group_of(row, row.model_copy(update=new))


def _hidden_changes(row: Example, clean: Example, find: Find) -> Iterator[Changed]:
    hide = hidden(find)
    for change in changes(row, clean):
        yield change.model_copy(update={"before": until_stable(hide, change.before)})


def _but(find: Find, allowed: Sequence[str]) -> Find:
    """The finder without the values that are allowed."""
    kept = frozenset(value.casefold() for value in allowed)
    return partial(_found_but, find=find, kept=kept) if kept else find


def _found_but(text: str, find: Find, kept: frozenset[str]) -> Iterable[Found]:
    return [each for each in find(text) if text[each.start : each.end].casefold() not in kept]


def _both(one: Find, other: Find) -> Find:
    def found(text: str) -> Iterator[Found]:
        yield from one(text)
        yield from other(text)

    return found


def run(params: PrivateParams, task: TaskParams, workspace: Path, engine: Engine = IN_PROCESS) -> str:
    """Write `data/private/`: examples, no quarantined rows, counts."""
    rows = StoredRecords(workspace / input_of("private", workspace) / "examples.jsonl", Example)
    find = _nothing if params.mode == "off" else finder(params)
    return write_batches(workspace, "private", replaced(rows, params, task, find, engine))


def _nothing(_: str) -> Iterable[Found]:
    return ()
