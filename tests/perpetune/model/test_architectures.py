"""Every architecture through the product's own loader equals transformers row by row, in training and in answers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_architectures import ARCHITECTURES, WORDS, write_model, write_tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, BertConfig

from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer
from perpetune.inference.likelihood import ScoredText
from perpetune.inference.predictor import Predictor
from perpetune.model.adapters import trainable
from perpetune.model.base import Base, load_base
from perpetune.model.chat.chat_format import answer_tokens, prompt_tokens
from perpetune.params import BaseParams, LoraParams, TrainParams
from perpetune.records import Example, Message
from perpetune.training.batches import Encoded, pack_rows
from perpetune.training.decoder.fused import summed_loss, training_network
from perpetune.training.job import train_here
from perpetune.training.job_files import Job
from perpetune.training.trainer import Forecast

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CACHE_FAILS = ("bart", "qwen4_exp_text")  # in transformers' own `generate`
LABELS = ("w7", "w8 w9", "w8 w10 w11", "w12")
LORA = LoraParams(rank=4, alpha=8, dropout=0.0, target_modules="all-linear")


def text(count: int, first: int) -> str:
    return " ".join(WORDS[3 + (7 * first + 5 * step) % 80] for step in range(count))


INSTRUCTION = text(8, 1)
CONVERSATIONS = [
    (Message(role="system", content=INSTRUCTION), Message(role="user", content=text(count, count)))
    for count in (24, 5, 40, 11, 5)
]


@dataclass(frozen=True)
class Tiny:
    """An architecture's random model: as transformers has it, and as the product answers with it. No test changes them."""

    folder: Path
    reference: Any
    predictor: Predictor


@pytest.fixture(scope="module", params=ARCHITECTURES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Made once for all tests of an architecture, which follow each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write_model(request.param, tmp_path_factory.mktemp("tiny"))
        reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return Tiny(folder, reference, Predictor(loaded(folder), 4096))


@pytest.fixture
def tiny(written: Tiny) -> Tiny:
    warnings.simplefilter("ignore")
    return written


def loaded(folder: Path) -> Base:
    return load_base(BaseParams(model=f"path:{folder}", revision=None), folder, "fp32")


def logits_of(model: Any, row: Sequence[int]) -> torch.Tensor:
    """As plainly as it can be written: no packing, no padding, no cache, all logits."""
    found: torch.Tensor = model(input_ids=torch.tensor([list(row)]), use_cache=False).logits[0]
    return found


def greedy(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    if model.config.model_type not in CACHE_FAILS:
        inputs = torch.tensor([list(prompt)])
        settings: dict[str, Any] = {"max_new_tokens": count, "do_sample": False}
        found: list[int] = model.generate(inputs, attention_mask=torch.ones_like(inputs), **settings)[0].tolist()
        return found[len(prompt) :]
    written: list[int] = []
    while len(written) < count and model.generation_config.eos_token_id not in written:
        written.append(int(logits_of(model, (*prompt, *written))[-1].argmax()))
    return written


def label_probabilities(model: Any, prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> list[float]:
    scores = []
    for tokens in labels:
        logits = logits_of(model, (*prompt, *tokens))[len(prompt) - 1 : -1].log_softmax(-1)
        scores.append(logits[range(len(tokens)), tokens].double().sum())
    found: list[float] = torch.stack(scores).softmax(-1).tolist()
    return found


def row_by_row(model: Any, rows: Sequence[Encoded]) -> torch.Tensor:
    total = torch.zeros(())
    for row in rows:
        logits = logits_of(model, row.tokens)[row.answer_from - 1 : -1]
        total = total + row.weight * cross_entropy(logits, torch.tensor(row.tokens[row.answer_from :]), reduction="sum")
    return total


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def encoded(base: Base) -> list[Encoded]:
    prompts = [prompt_tokens(base.tokenizer, messages) for messages in CONVERSATIONS]
    answers = [answer_tokens(base.tokenizer, label) for label in (*LABELS, LABELS[0])]
    return [
        Encoded((*prompt, *answer), len(prompt), weight=1.0 + position / 2)
        for position, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


def test_training_equals_transformers_row_by_row(tiny: Tiny) -> None:
    base = loaded(tiny.folder)
    rows = encoded(base)
    model = trainable(base, "lora", LORA, 1)
    model.eval()
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, 0.0, 0.2)
    expected = row_by_row(model, rows)
    expected.backward()
    wanted = gradients(model)
    assert wanted

    network = training_network(model, torch.float32)
    network.eval()
    loss = torch.stack([summed_loss(network, run, CPU) for run in pack_rows(rows, 4096)]).sum()
    loss.backward()
    got = gradients(model)

    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    assert got.keys() == wanted.keys()
    largest = max(float(gradient.norm()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        error = float((got[name] - gradient).norm()) / max(float(gradient.norm()), 1e-3 * largest)
        assert error <= 1e-3, f"{name}: {error}"


def test_answers_equal_transformers_row_by_row(tiny: Tiny) -> None:
    model, predictor = tiny.reference, tiny.predictor
    tokenizer = predictor.base.tokenizer
    with torch.inference_mode():
        answers = predictor.answer(None, CONVERSATIONS, LABELS, 8)
        for messages, answer in zip(CONVERSATIONS, answers, strict=True):
            prompt = prompt_tokens(tokenizer, messages)
            wanted = label_probabilities(model, prompt, [answer_tokens(tokenizer, label) for label in LABELS])
            assert list((answer.probabilities or {}).values()) == pytest.approx(wanted, abs=2e-5)


def test_likelihoods_equal_transformers_row_by_row(tiny: Tiny) -> None:
    model, predictor = tiny.reference, tiny.predictor
    texts = [ScoredText(row.tokens, max(1, row.answer_from - 6)) for row in encoded(predictor.base)]
    found = predictor.mean_losses(None, texts)
    with torch.inference_mode():
        wanted = [
            float(row_by_row(model, [Encoded(text.tokens, text.scored_from)])) / (len(text.tokens) - text.scored_from)
            for text in texts
        ]
    assert found == pytest.approx(wanted, rel=1e-4)


def test_greedy_text_equals_transformers_row_by_row(tiny: Tiny) -> None:
    model, predictor = tiny.reference, tiny.predictor
    tokenizer = predictor.base.tokenizer
    answers = predictor.answer(None, CONVERSATIONS, None, 8)
    with torch.inference_mode():
        for messages, answer in zip(CONVERSATIONS, answers, strict=True):
            written = greedy(model, prompt_tokens(tokenizer, messages), 8)
            assert answer.text == tokenizer.decode(written, skip_special_tokens=True)


ROWS = [
    Example(input=messages[1].content, output=label, id=str(position), group=str(position), source="test")
    for position, (messages, label) in enumerate(zip(CONVERSATIONS, (*LABELS, LABELS[0]), strict=True))
]


def trained(folder: Path, params: TrainParams, home: Path, labels: tuple[str, ...] | None) -> Path:
    job = Job(
        base=BaseParams(model=f"path:{folder}", revision=None),
        assets=home,
        instruction=INSTRUCTION,
        params=params,
        adapter=home / "adapter",
        checkpoints=home / "checkpoints",
        labels=labels,
    )
    done = train_here(job, ROWS, ROWS, lambda _: None, lambda _: None)
    assert done.validation_loss is not None
    return done.adapter


@pytest.fixture
def two_steps(train_params: TrainParams) -> TrainParams:
    update = {"epochs": 2.0, "batch_size": 5, "learning_rate": 0.05, "validations": 1, "max_example_tokens": 128}
    return train_params.model_copy(update=update)


def assert_as_in_transformers(answers: Sequence[Answer], reference: Any, adapter: Path, base: Base) -> None:
    """The label probabilities are those of the adapter on transformers' model, row by row."""
    model = PeftModel.from_pretrained(copy.deepcopy(reference), adapter).eval()
    labels = [answer_tokens(base.tokenizer, one) for one in LABELS]
    with torch.inference_mode():
        for messages, answer in zip(CONVERSATIONS, answers, strict=True):
            wanted = label_probabilities(model, prompt_tokens(base.tokenizer, messages), labels)
            assert list((answer.probabilities or {}).values()) == pytest.approx(wanted, abs=1e-4)


def test_a_trained_adapter_answers_as_in_transformers(tiny: Tiny, two_steps: TrainParams, tmp_path: Path) -> None:
    adapter = trained(tiny.folder, two_steps, tmp_path / "run", None)
    before = tiny.predictor.answer(None, CONVERSATIONS, LABELS, 8)
    predictor = Predictor(loaded(tiny.folder), 4096)
    predictor.load_adapter("trained", adapter)
    answers = predictor.answer("trained", CONVERSATIONS, LABELS, 8)

    assert_as_in_transformers(answers, tiny.reference, adapter, predictor.base)
    assert [one.probabilities for one in answers] != [one.probabilities for one in before]


def test_a_trained_label_head_answers(tiny: Tiny, two_steps: TrainParams, tmp_path: Path) -> None:
    adapter = trained(tiny.folder, two_steps, tmp_path / "run", LABELS)
    predictor = Predictor(loaded(tiny.folder), 4096)
    predictor.load_adapter("trained", adapter)
    together = predictor.answer("trained", CONVERSATIONS, LABELS, 8)
    for messages, answer in zip(CONVERSATIONS, together, strict=True):
        [alone] = predictor.answer("trained", [messages], LABELS, 8)
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-4)


EXPERTS = ("q_proj", "experts.gate_up_proj", "experts.down_proj")


@pytest.mark.parametrize("name", ["qwen3 moe", "mixtral, window", "gpt-oss"])
def test_experts_are_adapted_if_they_are_named(name: str, two_steps: TrainParams, tmp_path: Path) -> None:
    folder = write_model(name, tmp_path / "model")
    lora = two_steps.lora.model_copy(update={"target_modules": EXPERTS})
    adapter = trained(folder, two_steps.model_copy(update={"lora": lora}), tmp_path / "run", None)
    changed = load_file(adapter / "adapter_model.safetensors")
    assert any(
        "experts" in key and "lora_B" in key and float(weight.abs().max()) > 0 for key, weight in changed.items()
    )

    predictor = Predictor(loaded(folder), 4096)
    predictor.load_adapter("trained", adapter)
    answers = predictor.answer("trained", CONVERSATIONS, LABELS, 8)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert_as_in_transformers(answers, reference, adapter, predictor.base)


@pytest.mark.parametrize("name", ["qwen3 moe", "gpt-oss"])
def test_a_training_that_leaves_the_experts_says_so_before_it(
    name: str, two_steps: TrainParams, tmp_path: Path
) -> None:
    folder = write_model(name, tmp_path / "model")
    seen: list[object] = []
    job = Job(
        base=BaseParams(model=f"path:{folder}", revision=None),
        assets=tmp_path,
        instruction=INSTRUCTION,
        params=two_steps,
        adapter=tmp_path / "adapter",
        checkpoints=None,
    )
    train_here(job, ROWS, [], seen.append, seen.append)
    assert isinstance(seen[0], Forecast)
    [note] = seen[0].notes
    assert note.startswith("the experts (experts.down_proj, experts.gate_up_proj) stay as they are")


def test_experts_take_no_dropout(two_steps: TrainParams, tmp_path: Path) -> None:
    folder = write_model("qwen3 moe", tmp_path / "model")
    lora = two_steps.lora.model_copy(update={"target_modules": EXPERTS, "dropout": 0.1})
    with pytest.raises(PerpetuneError, match="lora_dropout") as fault:
        trained(folder, two_steps.model_copy(update={"lora": lora}), tmp_path / "run", None)
    assert fault.value.do == "experts take method: lora and dropout: 0 only"


def test_an_encoder_is_refused_before_the_training(two_steps: TrainParams, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    with pytest.raises(PerpetuneError, match="this bert is no causal language model"):
        trained(tmp_path / "model", two_steps, tmp_path / "run", None)
    with pytest.raises(PerpetuneError, match="this bert is no causal language model"):
        Predictor(loaded(tmp_path / "model"), 64)
