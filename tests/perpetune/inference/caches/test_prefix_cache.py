from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perpetune.generation.common_prefix import common_prefix
from perpetune.inference.caches import prefix_cache
from perpetune.inference.caches.prefix_cache import PrefixCache
from perpetune.inference.predictor import Predictor
from perpetune.model.adapters import trainable
from perpetune.model.base import Base
from perpetune.model.chat.chat_format import prompt_tokens
from perpetune.params import LoraParams
from perpetune.records import Message

LABELS = ("blue", "green", "red")


def ask(text: str, instruction: str = "which colour is it ?") -> tuple[Message, ...]:
    return (Message(role="system", content=instruction), Message(role="user", content=text))


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(tokens read before, tokens read) of every pass."""
    seen: list[tuple[int, int]] = []
    inputs = prefix_cache._inputs

    def counted(model, before, tokens, parents):  # type: ignore[no-untyped-def]
        seen.append((len(before), len(tokens)))
        return inputs(model, before, tokens, parents)

    monkeypatch.setattr(prefix_cache, "_inputs", counted)
    return seen


def adapter(base: Base, folder: Path, seed: int) -> Path:
    model = trainable(base, "lora", LoraParams(rank=4, alpha=64, dropout=0.0, target_modules="all-linear"), seed)
    torch.manual_seed(seed)
    for weights in model.parameters():
        if weights.requires_grad:
            torch.nn.init.normal_(weights)
    model.save_pretrained(str(folder))
    model.unload()  # type: ignore[operator]
    return folder


def probabilities(predictor: Predictor, name: str | None, *asked: tuple[Message, ...]) -> list[list[float]]:
    return [list((answer.probabilities or {}).values()) for answer in predictor.answer(name, asked, LABELS, 4)]


def test_an_instruction_is_read_once_for_all_calls(tiny_base: Base, lengths: list[tuple[int, int]]) -> None:
    predictor = Predictor(tiny_base, 1024)
    predictor.answer(None, [ask("sky")], LABELS, 4)
    instruction = lengths[0][1]
    assert lengths[0][0] == 0
    assert lengths[1][0] == instruction
    lengths.clear()
    predictor.answer(None, [ask("leaf")], LABELS, 4)
    predictor.answer(None, [ask("fire"), ask("sea is a sea"), ask("leaf")], LABELS, 4)
    assert all(before >= instruction for before, _ in lengths)
    lengths.clear()
    predictor.answer(None, [ask("sky", "say colour")], LABELS, 4)
    assert lengths[0][0] == 0


@pytest.mark.parametrize(
    "asked",
    [
        [ask("sky")],
        [ask("sky"), ask("sky")],
        [ask("sky is the sea"), ask("leaf", "say colour"), (Message(role="user", content="fire"),)],
        [ask("a"), ask("0"), ask("")],
        [ask("sea " * 9), ask("leaf"), ask("sky is"), ask("fire is it ?")],
    ],
    ids=["one", "the same twice", "nothing in common", "like what is asked instead", "unsorted"],
)
def test_company_and_order_change_no_answer(tiny_base: Base, asked: list[tuple[Message, ...]]) -> None:
    predictor = Predictor(tiny_base, 24)
    together = probabilities(predictor, None, *asked)
    for messages, found in zip(asked, together, strict=True):
        assert found == pytest.approx(probabilities(Predictor(tiny_base, 24), None, messages)[0], rel=1e-5)
    assert [answer.prompt_tokens for answer in predictor.answer(None, asked, LABELS, 4)] == [
        len(prompt_tokens(tiny_base.tokenizer, messages)) for messages in asked
    ]


def test_nothing_asked_is_nothing_answered(tiny_base: Base) -> None:
    assert Predictor(tiny_base, 24).answer(None, [], LABELS, 4) == []


def test_what_one_adapter_read_is_not_taken_for_what_another_would(tiny_base: Base, tmp_path: Path) -> None:
    one, two = (adapter(tiny_base, tmp_path / str(seed), seed) for seed in (1, 2))
    predictor = Predictor(tiny_base, 1024)
    base = probabilities(predictor, None, ask("sky"))
    predictor.load_adapter("name", one)
    first = probabilities(predictor, "name", ask("sky"))
    predictor.load_adapter("other", one)
    predictor.unload_adapter("name")
    predictor.load_adapter("name", two)
    second = probabilities(predictor, "name", ask("sky"))
    predictor.load_adapter("name", one)
    third = probabilities(predictor, "name", ask("sky"))

    assert probabilities(predictor, None, ask("sky")) == base
    assert first == third == probabilities(predictor, "other", ask("sky"))
    assert first != base
    assert second != first


def test_the_least_recently_used_prefixes_are_evicted(
    tiny_base: Base, lengths: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "MAX_CACHED_TOKENS", 8)
    kept = PrefixCache()
    for tokens in [(1, 2, 3), (4, 5, 6), (1, 2, 3), (7, 8, 9), (1, 2, 3), (4, 5, 6)]:
        kept.get(tiny_base.model, None, tokens)
    assert len(lengths) == 4, "the second of three was let go, the first was used meanwhile"
    kept.get(tiny_base.model, "tuned", (4, 5, 6))
    assert len(lengths) == 5
    assert len(kept.get(tiny_base.model, None, tuple(range(10)))) == 10, "one beyond the limit is read, not kept"
    kept.get(tiny_base.model, None, tuple(range(10)))
    assert len(lengths) == 7


def test_common_prefixes() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4], [1, 2]]) == (1, 2)
    assert common_prefix([[1], [2]]) == ()
    assert common_prefix([[1, 2]]) == (1, 2)
    assert common_prefix([[], [1]]) == ()
