from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from perpetune.inference.caches.prefix_cache import EMPTY_PREFIX, forward_tree, tree_logits
from perpetune.inference.labels import label_scoring as scoring
from perpetune.inference.labels.label_scoring import (
    FIRST_BEAM,
    MANY_TOKENS,
    TOLERANCE,
    TOLERANCE_OF_MANY,
    are_many,
    branch_of,
    label_log_probabilities,
)

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = [(LlamaForCausalLM, LlamaConfig), (MistralForCausalLM, MistralConfig), (Qwen2ForCausalLM, Qwen2Config)]
END = 2
PREFIX = (5, 6, 7, 8)
PROMPTS = [(*PREFIX, 11), (*PREFIX, 12, 13, 14, 15), (*PREFIX, 11), (*PREFIX, 11, 12)]
LABELS: dict[str, list[tuple[int, ...]]] = {
    "share first tokens": [(40, 41, 42, END), (40, 41, 43, END), (40, 44, END), (50, END)],
    "one begins another": [(40, END), (40, 41, END), (40, 41, 42, 43, END)],
    "one alone": [(40, 41, END)],
    "common prefix": [(40, 41, 42, END), (40, 41, 43, END)],
    "only ends": [(40,), (41,)],
    "one token and an end": [(token, END) for token in range(30, 60)],
    "part late": [(*range(40, 50), last, END) for last in (60, 61, 62)] + [(*range(40, 48), 63, END)],
}
MANY = [(first, second, third, END) for first in range(30, 55) for second in (60, 61, 62) for third in (70, 71)]


def tiny(model: type = LlamaForCausalLM, config: type = LlamaConfig, spread: float = 0.02) -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = model(config(**SIZE, initializer_range=spread, tie_word_embeddings=False))
    return network.eval()


def alone(network: torch.nn.Module, prompt: Sequence[int], label: Sequence[int]) -> float:
    with torch.no_grad():
        logits = network(torch.tensor([[*prompt, *label]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + step, token]) for step, token in enumerate(label))


def all_alone(
    network: torch.nn.Module, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> torch.Tensor:
    scores = [[alone(network, prompt, label) for label in labels] for prompt in prompts]
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize(("model", "config"), MODELS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("pass_tokens", [8, 2048], ids=["pass by pass", "in one pass"])
def test_scores_are_those_of_each_label_alone(
    model: type, config: type, labels: list[tuple[int, ...]], pass_tokens: int
) -> None:
    network = tiny(model, config)
    found = label_log_probabilities(network, PROMPTS, labels, forward_tokens=pass_tokens)
    torch.testing.assert_close(found, all_alone(network, PROMPTS, labels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "config"), MODELS)
def test_a_cached_prefix_serves_many_calls(model: type, config: type) -> None:
    network = tiny(model, config)
    labels = LABELS["share first tokens"]
    beginning, _ = forward_tree(network, EMPTY_PREFIX, PREFIX, range(-1, len(PREFIX) - 1))
    wanted = all_alone(network, PROMPTS, labels)
    for _ in range(2):
        found = label_log_probabilities(network, [prompt[len(PREFIX) :] for prompt in PROMPTS], labels, beginning)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert len(beginning) == len(PREFIX) == beginning.layers[0][0].shape[2], "what was read did not grow"


@pytest.mark.parametrize("pass_tokens", [1, 3, 1000])
def test_the_size_of_passes_changes_no_score(pass_tokens: int) -> None:
    network, labels = tiny(), LABELS["one begins another"]
    prompts = [*PROMPTS, (90, 91), (92,)]
    found = label_log_probabilities(network, prompts, labels, forward_tokens=pass_tokens)
    torch.testing.assert_close(found, all_alone(network, prompts, labels), rtol=0, atol=1e-5)


def test_logits_are_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    network, labels = tiny(), LABELS["share first tokens"]
    whole = label_log_probabilities(network, PROMPTS, labels)
    monkeypatch.setattr(scoring, "LOGITS_ROWS", 2)
    torch.testing.assert_close(label_log_probabilities(network, PROMPTS, labels), whole)


@pytest.mark.parametrize("spread", [0.5, 0.7, 1.0])
def test_labels_that_cannot_matter_are_left_unread_within_the_tolerance(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MANY_TOKENS", 1000)
    network = tiny(spread=spread)
    labels = [(a, b, c, END) for a in range(30, 40) for b in range(50, 53) for c in (60, 61)]
    exact = all_alone(network, PROMPTS, labels)

    found = label_log_probabilities(network, PROMPTS, labels, forward_tokens=64)

    unread = (found - exact).abs() > 1e-3
    assert unread.any(), "a model this sure leaves labels unread"
    assert (found >= exact - 1e-3).all(), "what is unread gets an upper bound"
    off = (found.softmax(-1) - exact.softmax(-1)).abs().max()
    assert float(off) <= TOLERANCE + 2e-5 * spread, "beside what fp32 itself loses"
    for row in range(len(PROMPTS)):
        share = found[row].softmax(-1)[unread[row]].sum()
        assert float(share) <= TOLERANCE
    assert found.argmax(-1).tolist() == exact.argmax(-1).tolist()


@pytest.mark.slow
def test_labels_that_begin_unlikely_and_end_likely_are_read() -> None:
    """The likeliest first token need not lead to the likeliest label: what was put off is taken up again."""
    network = tiny(spread=1.0)
    prompts = [(first, second) for first in range(10, 20) for second in (20, 21)]
    labels = [(a, b, c, END) for a in range(30, 36) for b in (50, 51) for c in (60, 61)]
    exact = all_alone(network, prompts, labels)
    first = torch.stack([torch.tensor([alone(network, prompt, label[:1]) for label in labels]) for prompt in prompts])
    assert (first.gather(1, exact.argmax(-1)[:, None])[:, 0] < first.max(-1).values).any()

    found = label_log_probabilities(network, prompts, labels, forward_tokens=64)

    assert found.argmax(-1).tolist() == exact.argmax(-1).tolist()
    torch.testing.assert_close(found.softmax(-1), exact.softmax(-1), rtol=0, atol=2e-5)


def test_labels_are_laid_out_by_what_they_share() -> None:
    root = branch_of(dict(enumerate([(1, 2, 3, 9), (1, 2, 4, 9), (1, 2, 9), (5, 6, 9)])))
    assert root.tokens == ()
    assert [branch.tokens for branch in root.branches] == [(1, 2), (5, 6)]
    shared, single = root.branches
    assert shared.ends == {2: 9}
    assert [branch.tokens for branch in shared.branches] == [(3,), (4,)]
    assert single.ends == {3: 9}
    assert shared.labels == (0, 1, 2)


def test_bf16_differs_by_its_own_noise_alone() -> None:
    network = tiny().to(torch.bfloat16)
    labels = LABELS["share first tokens"]
    found = label_log_probabilities(network, PROMPTS, labels)
    wanted = all_alone(network, PROMPTS, labels)
    assert float((found - wanted).abs().max()) < 0.1
    assert math.isclose(float(found.softmax(-1).sum()), len(PROMPTS), rel_tol=1e-9)


@pytest.fixture
def tokens_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of every pass."""
    seen: list[int] = []

    def counted(model, before, tokens, parents, wanted):  # type: ignore[no-untyped-def]
        seen.append(len(tokens))
        return tree_logits(model, before, tokens, parents, wanted)

    monkeypatch.setattr(scoring, "tree_logits", counted)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("pass_tokens", [8, 2048])
@pytest.mark.parametrize("spread", [0.05, 0.7])
def test_many_labels_are_within_their_tolerance_and_the_likeliest_is_exact(spread: float, pass_tokens: int) -> None:
    network = tiny(spread=spread)
    found = label_log_probabilities(network, PROMPTS, MANY, forward_tokens=pass_tokens)
    exact = all_alone(network, PROMPTS, MANY)
    assert float((found.softmax(-1) - exact.softmax(-1)).abs().max()) <= TOLERANCE_OF_MANY
    assert found.argmax(-1).tolist() == exact.argmax(-1).tolist()
    torch.testing.assert_close(found.max(-1).values, exact.max(-1).values, rtol=0, atol=1e-3)


def test_company_leaves_the_same_labels_unread() -> None:
    network = tiny(spread=0.5)
    together = label_log_probabilities(network, PROMPTS, MANY)
    for prompt, found in zip(PROMPTS, together, strict=True):
        [single] = label_log_probabilities(network, [prompt], MANY, forward_tokens=8)
        torch.testing.assert_close(single, found, rtol=0, atol=1e-3)


def test_the_likeliest_of_many_branches_are_read_first_and_fewer_than_at_the_finer_tolerance(
    tokens_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    label_log_probabilities(tiny(spread=0.7), [PROMPTS[1]], MANY, forward_tokens=8)
    assert tokens_read[0] == len(PROMPTS[1])
    assert tokens_read[1] <= FIRST_BEAM
    read = sum(tokens_read)
    tokens_read.clear()
    monkeypatch.setattr(scoring, "MANY_TOKENS", 1000)
    label_log_probabilities(tiny(spread=0.7), [PROMPTS[1]], MANY, forward_tokens=8)
    assert read < sum(tokens_read)


def test_many_are_counted_in_tokens_to_read() -> None:
    assert are_many(MANY)
    assert not are_many([(token, END) for token in range(MANY_TOKENS)])
    assert are_many([(token, END) for token in range(MANY_TOKENS + 1)])
