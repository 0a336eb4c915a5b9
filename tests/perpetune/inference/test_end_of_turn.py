"""Answers end where the model's makers say, with tokenizers whose end-of-text token is another."""

from __future__ import annotations

import asyncio
import json
from datetime import date, timedelta
from pathlib import Path

import pytest
import torch
from chat_families import BY_NAME, Family, family_tokenizer, token_id
from random_llama import random_llama

from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import GenerationConfig
from perpetune.generation.prompt_format import PromptFormat
from perpetune.inference.predictor import Predictor
from perpetune.model.base import Base, load_base
from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams, TrainParams
from perpetune.records import Example, Message
from perpetune.training.job import train_here
from perpetune.training.job_files import Job
from perpetune.training.trainer import Progress

ASKED = ((Message(role="system", content="Say it."), Message(role="user", content="The battery lasts.")),)
ENDS = [family for family in BY_NAME.values() if family.generation_eos]


def saved(folder: Path, family: Family) -> BaseParams:
    """A random model with the family's tokenizer and generation_config.json."""
    tokenizer = family_tokenizer(family.name)
    tokenizer.save_pretrained(folder)
    model = random_llama(len(tokenizer), positions=256, eos=tokenizer.eos_token_id)
    if family.generation_eos:
        model.generation_config.eos_token_id = [token_id(tokenizer, one) for one in family.generation_eos]
    model.save_pretrained(folder)
    return BaseParams(model=f"path:{folder}")


@pytest.fixture(params=ENDS, ids=[family.name for family in ENDS])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    return load_base(saved(tmp_path / "base", request.param), tmp_path, "fp32")


def always(base: Base, token: int) -> None:
    """Let the model write this token again and again."""
    head = torch.nn.Linear(32, base.model.config.vocab_size)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    head.bias.data[token] = 1
    base.model.set_output_embeddings(head)


def test_each_token_of_generation_config_ends_an_answer_and_no_other(base: Base, tmp_path: Path) -> None:
    predictor = Predictor(base, 512)
    named = set(base.model.generation_config.eos_token_id)
    assert predictor.chat.stops == named | {base.tokenizer.eos_token_id}
    assert load_chat_tokenizer(BaseParams(model=f"path:{tmp_path / 'base'}"), tmp_path).stops == predictor.chat.stops
    letter = predictor.chat.plain("a")[-1]
    for token in (*predictor.chat.stops, letter):
        always(base, token)
        [answer] = Predictor(base, 512).answer(None, ASKED, None, 4)
        ended = token != letter
        assert (answer.finish_reason, answer.completion_tokens) == (("stop", 1) if ended else ("length", 4))
        assert ended is (answer.text == "")


def test_an_answer_with_a_schema_ends_there_too(base: Base) -> None:
    [answer] = Predictor(base, 512).answer(None, ASKED, None, 16, json.dumps({"enum": ["yes"]}))
    assert (answer.text, answer.finish_reason) == ('"yes"', "stop")


def test_a_label_is_scored_with_the_end_of_turn(base: Base) -> None:
    """The label whose end of turn is likely wins: the tokens of the answer and that token, no other."""
    predictor = Predictor(base, 512)
    prompt = predictor.chat.prompt(ASKED[0])
    [answer] = predictor.answer(None, ASKED, ("yes", "yes it is"), 8)
    expected = []
    for label in ("yes", "yes it is"):
        tail = predictor.chat.answer(label)
        assert tail[-1] in predictor.chat.stops
        with torch.inference_mode():
            logits = base.model(torch.tensor([[*prompt, *tail]])).logits[0, len(prompt) - 1 : -1]
        expected.append(float(logits.log_softmax(-1).gather(-1, torch.tensor(tail)[:, None]).sum()))
    likely = torch.tensor(expected).softmax(-1).tolist()
    assert list((answer.probabilities or {}).values()) == pytest.approx(likely, abs=1e-4)


@pytest.fixture
def dated(tmp_path: Path) -> BaseParams:
    return saved(tmp_path / "dated", BY_NAME["smollm3"])


def rows() -> list[Example]:
    return [
        Example(input=f"it {text}", output=label, id=text, group=text, source="t")
        for text, label in (("works", "yes"), ("lasts", "yes"), ("breaks", "no"), ("is red", "no"))
    ]


def test_a_training_stopped_before_midnight_goes_on_after_it(
    dated: BaseParams, tmp_path: Path, train_params: TrainParams
) -> None:
    """The prompts of a template with today's date are part of a checkpoint's identity."""

    class Midnight(Exception):
        pass

    def train(day: date, stop_at: int | None) -> list[int]:
        steps: list[int] = []
        job = Job(
            base=dated,
            assets=tmp_path,
            instruction="Say it.",
            params=train_params.model_copy(update={"epochs": 3.0, "max_example_tokens": 256, "max_packed_tokens": 512}),
            adapter=tmp_path / "adapter",
            checkpoints=tmp_path / "checkpoints",
            prompt_date=day,
        )

        def report(progress: Progress) -> None:
            steps.append(progress.step)
            if progress.step == stop_at:
                raise Midnight

        try:
            train_here(job, rows(), [], report)
        except Midnight:
            pass
        return steps

    day = date(2026, 1, 2)
    assert train(day, 2) == [1, 2]
    assert train(day, None)[0] > 1, "goes on"
    assert train(day, 2) == [1, 2]
    assert train(day + timedelta(days=1), None)[0] == 1, "another day is another training"


def test_each_version_is_asked_with_its_own_day(dated: BaseParams, tmp_path: Path) -> None:
    """Two prompted versions of one base, made on different days, in one engine."""
    predictor = Predictor(load_base(dated, tmp_path, "fp32"), 512)
    days = {"1": date(2026, 1, 2), "2": date(2026, 12, 31)}

    async def run() -> dict[str, Answer]:
        engine = TransformersEngine(predictor, dated, ServeParams())
        for version, day in days.items():
            made = Release("t", version, tmp_path, "Say it.", ("yes", "no"), dated, system="prompted", prompt_date=day)
            await engine.load(made)
        said = {version: await engine.answer(version, ASKED[0], GenerationConfig(8)) for version in days}
        await engine.close()
        return {version: answer for version, (answer,) in said.items()}

    found = asyncio.run(run())
    for version, day in days.items():
        [expected] = predictor.answer(None, ASKED, ("yes", "no"), 8, prompt_format=PromptFormat(day=day))
        assert found[version].probabilities == expected.probabilities
    assert found["1"].probabilities != found["2"].probabilities
