"""What a client reads from the log-probabilities: tokens that make up the text, and the bytes of half characters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from random_llama import random_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from perpetune.generation.answer import Answer, TokenLogprob
from perpetune.generation.parameters import Delta, GenerationConfig
from perpetune.generation.request import GenerationRequest
from perpetune.inference.decoding.detokenizer import Detokenizer
from perpetune.inference.decoding.token_logprobs import TokenTexts, token_bytes, token_logprob
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base
from perpetune.records import Message

ASKED = (Message(role="user", content="a b"),)


def byte_level() -> Tokenizer:
    """As of GPT-2, Llama 3 and Qwen: the tokens are bytes, and some of several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(["</s>", "<ctl>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentence_piece() -> Tokenizer:
    """As of Llama 2, Mistral and Gemma: words with a mark for the space, and bytes for what is not in the vocabulary."""
    words = ["</s>", "<ctl>", "▁", "▁a", "b", "▁the", "é", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@pytest.fixture(scope="module", params=[byte_level, sentence_piece])
def base(request: pytest.FixtureRequest) -> Base:
    """A random model that writes any token."""
    make: Callable[[], Tokenizer] = request.param
    fast = PreTrainedTokenizerFast(tokenizer_object=make(), eos_token="</s>", pad_token="</s>")
    fast.add_special_tokens({"additional_special_tokens": ["<ctl>"]})
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return Base(random_llama(len(fast), positions=256, eos=0, layers=1).eval(), fast, "")


def write(base: Base, generation: GenerationConfig) -> tuple[tuple[Answer, ...], list[Delta]]:
    answers: list[tuple[Answer, ...]] = []
    deltas: list[Delta] = []

    def fail(fault: Exception) -> None:
        raise fault

    waiting = [[GenerationRequest(ASKED, generation, answers.append, fail, deltas.append)]]
    Predictor(base, 1024).generate(None, lambda writing: waiting.pop() if waiting else [])
    return answers[0], deltas


def spell(token: TokenLogprob) -> bytes:
    return token.token.encode() if token.utf8 is None else token.utf8


@pytest.mark.parametrize("stop", [(), ("b", "a")])
def test_tokens_make_up_the_text_whatever_is_written(base: Base, stop: tuple[str, ...]) -> None:
    generation = GenerationConfig(40, n=48, temperature=1.5, seed=3, top_logprobs=2, stop=stop)
    answers, deltas = write(base, generation)
    broken = 0
    for index, answer in enumerate(answers):
        assert answer.logprobs is not None
        assert "".join(token.token for token in answer.logprobs) == answer.text
        mine = [delta for delta in deltas if delta.index == index]
        assert sum((delta.logprobs or () for delta in mine), ()) == answer.logprobs
        assert sum(delta.tokens for delta in mine) <= answer.completion_tokens
        said = ""
        for delta in mine:  # a client that joins both as they come sees the same text
            said += "".join(token.token for token in delta.logprobs or ())
            assert answer.text.startswith(said)
        broken += "�" in answer.text
    assert broken


@pytest.mark.parametrize("text", ["naïve 🙂 ë", " 日本語 a", "a", "  b 🙂"])
def test_bytes_make_up_the_text_of_whole_characters(base: Base, text: str) -> None:
    tokenizer = base.tokenizer
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces, texts, found = Detokenizer(tokenizer), TokenTexts(), list[TokenLogprob]()
    raw = ""
    for token in tokens:
        logits = torch.zeros(len(tokenizer))
        logits[token] = 5.0
        texts.add(token_logprob(tokenizer, token, logits, 1))
        piece = pieces.add(token)
        raw += piece
        found += texts.text(piece)
    assert len(found) == len(tokens)
    assert "".join(one.token for one in found) == raw
    assert b"".join(map(spell, found)) == raw.encode()
    for one in found:
        assert one.top[0] == (one.token, one.logprob)
        assert one.top_utf8[:1] == ((one.utf8,) if one.utf8 is not None else ())
    halves = [one for one in found if one.utf8]
    assert ("🙂" in text or "日" in text) == bool(halves)


def test_a_control_token_adds_nothing(base: Base) -> None:
    tokenizer = base.tokenizer
    control = int(tokenizer.convert_tokens_to_ids("<ctl>"))  # type: ignore[arg-type]
    [letter] = tokenizer("b", add_special_tokens=False)["input_ids"][-1:]
    texts, pieces = TokenTexts(), Detokenizer(tokenizer)
    found: list[TokenLogprob] = []
    for token in (control, letter, control):
        texts.add(token_logprob(tokenizer, token, torch.zeros(len(tokenizer)), 0))
        found += texts.text(pieces.add(token))
    found += texts.rest()
    assert [(one.token, spell(one)) for one in found] == [("", b""), ("b", b"b"), ("", b"")]


def test_a_half_character_is_shown_as_openai_does(base: Base) -> None:
    token = base.tokenizer("🙂", add_special_tokens=False)["input_ids"][-1]
    shown = token_logprob(base.tokenizer, token, torch.zeros(len(base.tokenizer)), 0)
    assert (shown.token, shown.utf8) == ("\\x82", b"\x82")
    assert token_bytes(base.tokenizer, token) == b"\x82"
