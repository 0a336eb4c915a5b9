from __future__ import annotations

from difflib import ndiff
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perpetune.errors import PerpetuneError
from perpetune.params.edit import number_as_yaml, replace_values

TEXT = """\
# Ours.
task: {name: tickets}

train:
  # how far
  lora: {rank: 8, alpha: 16}
  epochs: 2   # passes
  learning_rate: 5.0e-4
"""


@given(st.one_of(st.integers(1, 10_000), st.floats(1e-12, 1e12)))
def test_numbers_are_read_back_as_they_were(value: float) -> None:
    assert yaml.safe_load(number_as_yaml(value)) == value


def test_numbers_are_written_as_people_write_them() -> None:
    assert [number_as_yaml(value) for value in (3e-4, 3.12e-5, 0.02, 2.0, 1.25, 16)] == [
        "3.0e-4",
        "3.12e-5",
        "0.02",
        "2",
        "1.25",
        "16",
    ]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rewriting_touches_the_values_only(tmp_path: Path, line_end: str) -> None:
    path = tmp_path / "params.yaml"
    before = TEXT.replace("\n", line_end)
    path.write_bytes(before.encode())
    replace_values(
        path, {"train.lora.rank": 16, "train.lora.alpha": 32, "train.epochs": 1.5, "train.learning_rate": 3e-4}
    )
    after = path.read_bytes().decode()
    assert [line for line in ndiff(before.split(line_end), after.split(line_end)) if line[0] in "+-"] == [
        "-   lora: {rank: 8, alpha: 16}",
        "+   lora: {rank: 16, alpha: 32}",
        "-   epochs: 2   # passes",
        "+   epochs: 1.5   # passes",
        "-   learning_rate: 5.0e-4",
        "+   learning_rate: 3.0e-4",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: &here 2\ntrain: {epochs: *here}\n",
        "train:\n  epochs: &here 2\n",
        "train:\n  epochs: '2'\n",
        "train:\n",
        "train: &here {lora: {}}\n",
        "train: [1]\n",
        "",
    ],
)
def test_what_is_more_than_a_number_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(PerpetuneError, match=r"params.yaml.*: train.epochs: there is no plain number to replace"):
        replace_values(path, {"train.epochs": 3})
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "field", "after"),
    [
        ("train:\n  seed: 7\n", "train.epochs", "train:\n  epochs: 3\n  seed: 7\n"),
        ("train:\r\n  seed: 7\r\n", "train.epochs", "train:\r\n  epochs: 3\r\n  seed: 7\r\n"),
        ("train: {seed: 7}\n", "train.epochs", "train: {epochs: 3, seed: 7}\n"),
        ("train: {}\n", "train.lora.rank", "train: {lora: {rank: 3}}\n"),
        ("train:\n  # why\n  seed: 7\n", "train.lora.rank", "train:\n  # why\n  lora: {rank: 3}\n  seed: 7\n"),
        ("task: {name: a}", "train.lora.rank", "task: {name: a}\n\ntrain:\n  lora: {rank: 3}\n"),
    ],
)
def test_a_setting_that_the_file_does_not_say_goes_into_its_section(
    text: str, field: str, after: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    replace_values(path, {field: 3})
    assert path.read_bytes().decode() == after


def test_settings_of_one_new_section_share_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("task: {name: a}\n")
    replace_values(path, {"train.lora.rank": 4, "train.lora.alpha": 8, "train.epochs": 2})
    assert yaml.safe_load(path.read_text())["train"] == {"lora": {"rank": 4, "alpha": 8}, "epochs": 2}
