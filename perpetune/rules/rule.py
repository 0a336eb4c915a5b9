"""What a rule is: a function of a row that returns a label, or None to abstain."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from perpetune.records import Example

Function = TypeVar("Function", bound=Callable[..., object])

_MARK = "_is_a_rule_of_perpetune"


@dataclass(frozen=True)
class Rule:
    """A labelling function by name; it may return anything and raise anything, because people write it."""

    name: str
    function: Callable[[Example], object]


def rule(function: Function) -> Function:
    """Mark a function as a rule. In a file without marks every public function is one."""
    setattr(function, _MARK, True)
    return function


def is_marked(function: Callable[..., object]) -> bool:
    return bool(getattr(function, _MARK, False))


def rule_of(name: str, function: Callable[..., object]) -> Rule:
    """The rule that calls this function with a row's text, or with the whole Example if its parameter says so.

    Raises ValueError if it cannot be called with one argument.
    """
    needed = _parameters(function)
    if len(needed) != 1:
        raise ValueError(f"it must take one argument, the text or the Example; it takes {len(needed)}")
    if _takes_example(needed[0]):
        return Rule(name, function)
    return Rule(name, lambda row: function(row.input))


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """Those that a call must fill, or the first optional one."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    every = list(inspect.signature(function).parameters.values())
    needed = [each for each in every if each.default is each.empty and each.kind in (*positional, each.KEYWORD_ONLY)]
    return needed or [each for each in every if each.kind in positional][:1]


def _takes_example(parameter: inspect.Parameter) -> bool:
    said = parameter.annotation
    if said is inspect.Parameter.empty:
        return parameter.name == "example"
    return said is Example or (isinstance(said, str) and said.rpartition(".")[2] == "Example")
