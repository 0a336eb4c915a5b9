from __future__ import annotations

import random

import pytest
from chat_families import FAMILIES, family_tokenizer
from transformers import PreTrainedTokenizerBase

from perpetune.model.base import Base
from perpetune.model.chat.segments import SegmentEncoder, is_cut, segment_encoder

PIECES = (" a", "Größe ", "你好", "\n\n", "  ", "<|", "|>", "s>", "</", "01", "\u2581x", "🙂", "user\n", "#")


def encoder_of(tokenizer: PreTrainedTokenizerBase) -> SegmentEncoder:
    encoder = segment_encoder(tokenizer)
    assert encoder
    return encoder


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_segments_have_the_tokens_of_the_whole_text(name: str) -> None:
    tokenizer, draw = family_tokenizer(name), random.Random(1)
    encoder = encoder_of(tokenizer)
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    for _ in range(300):
        text = "".join(draw.choices(added if draw.random() < 0.4 else PIECES)[0] for _ in range(draw.randrange(12)))
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encoder.encode(text) == expected, repr(text)
        assert encoder.encode(text) == expected, "also from what is kept"


def test_what_other_calls_set_changes_no_tokens(tiny_base: Base) -> None:
    tokenizer = tiny_base.tokenizer
    control = next(token.content for token in tokenizer.added_tokens_decoder.values() if is_cut(token))
    text = f"{control}a long text{control}"
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]

    encoder = encoder_of(tokenizer)
    tokenizer(["a b c d e f g", "a"], truncation=True, max_length=2, padding="max_length")
    tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    assert encoder.encode(text) == expected


def test_a_tokenizer_of_another_kind_encodes_by_itself(tiny_base: Base) -> None:
    tokenizer = tiny_base.tokenizer
    tokenizer.split_special_tokens = True
    assert segment_encoder(tokenizer) is None
