from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.rules.load import RuleFile, load_rules

ROW = Example(input="My money", output="", id="1", group="g", source="s")


def loaded(folder: Path, text: str) -> RuleFile:
    path = folder / "rules.py"
    path.write_text(text)
    return load_rules(path)


def test_without_marks_every_public_function_is_a_rule(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "from re import search\n\ndef money(text):\n    return 'pay' if search('money', text) else None\n\n"
        "def _helper(a, b):\n    return None\n",
    )
    assert found.names == ("money",)
    assert found.rules[0].function(ROW) == "pay"


def test_with_marks_only_marked_functions_are_rules(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "from perpetune.rules import rule\n\n@rule\ndef one(text):\n    return None\n\ndef helper(a, b):\n    return 1\n",
    )
    assert found.names == ("one",)


@pytest.mark.parametrize("parameter", ["example", "row: Example", "row: 'Example'", "row: perpetune.rules.Example"])
def test_a_rule_may_take_the_example(tmp_path: Path, parameter: str) -> None:
    lines = "import perpetune.rules\nfrom perpetune.rules import Example\n\n"
    name = parameter.split(":")[0]
    [rule] = loaded(tmp_path, f"{lines}def one({parameter}):\n    return {name}.id\n").rules
    assert rule.function(ROW) == "1"


def test_a_prompt_is_a_rule_by_the_name_of_its_variable(tmp_path: Path) -> None:
    found = loaded(tmp_path, "from perpetune.rules import Prompt\nlarge = Prompt('http://127.0.0.1/v1', 'm')\n")
    assert found.names == ("large",) and not found.rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no rule"),
        ("def one(a, b):\n    return None\n", "`one` is no rule: it must take one argument"),
        ("x = 1 / 0\n", r"it cannot be run: ZeroDivisionError: division by zero \(line 1\)"),
        ("def one(text):\n  return (\n", r"it cannot be run: .*SyntaxError.*\(line"),
        ("import nothing_of_this_name\n", "it cannot be run: ModuleNotFoundError"),
        ("from perpetune.rules import Prompt\nlarge = Prompt('openai', 'm')\n", "is no http address"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PerpetuneError, match=said):
        loaded(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match=r"rules\.py: the file does not exist"):
        load_rules(tmp_path / "rules.py")
