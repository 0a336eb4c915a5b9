"""Loading the rules of a Python file."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

from perpetune.errors import PerpetuneError
from perpetune.rules.prompt import Prompt
from perpetune.rules.rule import Rule, is_marked, rule_of


@dataclass(frozen=True)
class RuleFile:
    """The rules of a file, in its order, and its prompts by name."""

    rules: tuple[Rule, ...]
    prompts: dict[str, Prompt]

    @property
    def names(self) -> tuple[str, ...]:
        return (*(rule.name for rule in self.rules), *self.prompts)


def load_rules(path: Path) -> RuleFile:
    """The rules of a Python file: the functions marked with `@rule`, or all public ones if none is; and every `Prompt`.

    Raises PerpetuneError if the file cannot be read or run, or has no rule.
    """
    module = _run(path)
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    functions = {name: value for name, value in public.items() if _is_own(value, module)}
    marked = {name: value for name, value in functions.items() if is_marked(value)}
    found = RuleFile(
        tuple(_rule(name, function, path) for name, function in (marked or functions).items()),
        {name: value for name, value in public.items() if isinstance(value, Prompt)},
    )
    if not found.names:
        raise PerpetuneError(
            "there is no rule", where=str(path), do="write functions such as `def refund(text: str) -> str | None`"
        )
    return found


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise PerpetuneError(
            "the file does not exist", where=str(path), do="write your rules there, or say --rules FILE"
        )
    spec = importlib.util.spec_from_file_location("perpetune_user_rules", path)
    if spec is None or spec.loader is None:
        raise PerpetuneError("it is no Python file", where=str(path), do="name it rules.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        raise PerpetuneError(f"it cannot be run: {described(fault, path)}", where=str(path)) from fault
    return module


def _is_own(value: object, module: ModuleType) -> bool:
    """Whether this is a function that the file defines, and not one that it imports."""
    return isinstance(value, FunctionType) and value.__module__ == module.__name__


def _rule(name: str, function: Callable[..., object], path: Path) -> Rule:
    try:
        return rule_of(name, function)
    except ValueError as fault:
        raise PerpetuneError(
            f"`{name}` is no rule: {fault}", where=str(path), do="begin its name with _, or mark the rules with @rule"
        ) from None


def described(fault: BaseException, path: Path | None = None) -> str:
    """An exception in one line, with the last line of the user's file that it passed."""
    text = " ".join("".join(traceback.format_exception_only(fault)).split())
    frames = traceback.extract_tb(fault.__traceback__)
    inside = [frame for frame in frames if path is None or Path(frame.filename).name == path.name]
    line = inside[-1].lineno if inside else getattr(fault, "lineno", None)
    return f"{text} (line {line})" if line else text
