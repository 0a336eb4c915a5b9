"""Keep personal data and secrets out of training rows: stable placeholders instead, so that the task can still be learned."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from perpetune.curation.pipeline import input_of
from perpetune.curation.quarantine import Changed, Quarantined, StepResult, in_order
from perpetune.curation.repairing.fixpoint import until_stable
from perpetune.curation.row_texts import changes, texts, with_group_of
from perpetune.curation.steps.step_files import write_step
from perpetune.errors import PerpetuneError
from perpetune.params import PrivateParams, TaskParams
from perpetune.records import Example, read_jsonl
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

    def __init__(self, rows: Sequence[Example]) -> None:
        self.kinds: Counter[str] = Counter()
        self._numbers: dict[tuple[str, str], int] = {}
        self._used: dict[str, set[int]] = defaultdict(set)
        for kind, number in (found for row in rows for _, text in texts(row) for found in _NUMBERED.findall(text)):
            self._used[kind].add(int(number))

    def __call__(self, kind: str, value: str) -> str:
        self.kinds[kind] += 1
        key = kind, _UNSPELLED.sub("", value.casefold()) or value
        if key not in self._numbers:
            used = self._used[kind]
            self._numbers[key] = next(number for number in range(1, len(used) + 2) if number not in used)
            used.add(self._numbers[key])
        return f"<{kind}_{self._numbers[key]}>"


def private(examples: Sequence[Example], params: PrivateParams, task: TaskParams, find: Find) -> StepResult:
    """Replace what `find` finds in inputs and outputs, or with mode `report` only report it; no row is quarantined.

    The same value has the same placeholder in all rows of a group: what the output copies from the input is still a copy.
    Labels of a classification stay. What is changed or reported is written down without the values themselves.
    """
    rows = in_order(examples)
    if params.mode == "off":
        return StepResult(tuple(rows), ())
    find = _but(find, params.allow)
    found = [(row, clean, kinds) for row, clean, kinds in _replaced(rows, find, task) if clean is not row]
    if params.mode == "report":
        reported = (Quarantined(reason=kind, example=clean) for _, clean, kinds in found for kind in kinds)
        return StepResult(tuple(rows), (), reported=tuple(reported))
    clean_of = {id(row): clean for row, clean, _ in found}
    changed = (change for row, clean, _ in found for change in _hidden_changes(row, clean, find))
    return StepResult(tuple(clean_of.get(id(row), row) for row in rows), (), tuple(changed))


def finder(params: PrivateParams) -> Find:
    """What the settings look for. Raises PerpetuneError if it is to be replaced and what finds it is not installed."""
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


def _replaced(
    rows: Sequence[Example], find: Find, task: TaskParams
) -> Iterator[tuple[Example, Example, tuple[str, ...]]]:
    """Each row, the row with placeholders, and the kinds of what was found in it."""
    by_group: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_group[row.group].append(row)
    for group in by_group.values():
        placeholders = Placeholders(group)
        for row in group:
            placeholders.kinds.clear()
            clean = _with_placeholders(row, Replacer(find, placeholders), labelled=task.kind == "classification")
            yield row, clean, tuple(sorted(placeholders.kinds))


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
    kept = {value.casefold() for value in allowed}

    def found(text: str) -> Iterator[Found]:
        return (each for each in find(text) if text[each.start : each.end].casefold() not in kept)

    return found if kept else find


def _both(one: Find, other: Find) -> Find:
    def found(text: str) -> Iterator[Found]:
        yield from one(text)
        yield from other(text)

    return found


def run(params: PrivateParams, task: TaskParams, workspace: Path) -> str:
    """Write `data/private/`: examples, no quarantined rows, counts."""
    rows = read_jsonl(workspace / input_of("private", workspace) / "examples.jsonl", Example)
    if params.mode == "off":
        return write_step(workspace, "private", StepResult(tuple(rows), ()))
    return write_step(workspace, "private", private(rows, params, task, finder(params)))
