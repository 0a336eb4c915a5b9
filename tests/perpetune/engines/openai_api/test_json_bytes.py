from __future__ import annotations

import json

import pytest

from perpetune.engines.openai_api.json_bytes import json_bytes


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None, True], "b": {"c": "Größe 你好 😀 \u2028"}}, [], {"tokens": list(range(1000))}]
)
def test_it_reads_as_what_it_was(value: object) -> None:
    assert json.loads(json_bytes(value)) == value


def test_half_a_character_is_escaped() -> None:
    assert json_bytes({"a": "x\ud83d"}) == b'{"a":"x\\ud83d"}'
