"""A tiny random model with a word-level tokenizer, and an encoder, on disk in Hugging Face's format."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from local_servers import QuietHandler, serve_until_exit
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
)
from word_models import save_word_model

from perpetune.model.base import Base, load_base
from perpetune.params import BaseParams, LoraParams, TrainParams
from perpetune.records import Example
from perpetune.training.job_files import Job

pytest_plugins = ["gateways", "workspaces", "prefect_server"]

# A wheel that is missing is not fetched here: what a test finds must not depend on the network.
os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}

# Seconds of the wall clock say nothing on a busy machine.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

torch.set_num_threads(1)  # threads would wait for each other longer than a tiny model computes

WORDS = [
    "system",
    "user",
    "assistant",
    "which",
    "colour",
    "is",
    "it",
    "?",
    "red",
    "green",
    "blue",
    "sky",
    "grass",
    "blood",
    "sea",
    "leaf",
    "fire",
    "a",
    "the",
    "say",
]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-slow` imports only files that mark a test as slow: two thirds of them do not."""
    if config.option.markexpr != "slow" or not collection_path.match("test_*.py"):
        return None
    return True if "pytest.mark.slow" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_finish() -> None:
    """What was collected stays: without this each pass of the garbage collector would look through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Commands that are run in this process set variables for the services that they find."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ |= before


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_word_model(tmp_path_factory.mktemp("tiny"), WORDS, positions=64)


RandomModel = Callable[[Path, Sequence[str], int], Path]


@pytest.fixture(scope="session")
def random_model() -> RandomModel:
    return save_word_model


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> BaseParams:
    """A random sentence encoder, in the format of sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    bare, whole = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (bare / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(bare / "vocab.txt")).save_pretrained(bare)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(bare)
    transformer = modules.Transformer(str(bare))
    SentenceTransformer(modules=[transformer, modules.Pooling(16)]).save(str(whole))
    return BaseParams(model=f"path:{whole}", revision=None)


@pytest.fixture
def tiny_params(tiny_folder: Path) -> BaseParams:
    return BaseParams(model=f"path:{tiny_folder}", revision=None)


@pytest.fixture
def tiny_base(tiny_params: BaseParams, tmp_path: Path) -> Base:
    return load_base(tiny_params, tmp_path, "fp32")


Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


@pytest.fixture
def json_server() -> Iterator[Callable[[Reply], str]]:
    """Start a server that answers what is posted with the status and the JSON that `reply` makes of it; its address."""
    with ExitStack() as stack:

        def begin(reply: Reply) -> str:
            class Handler(QuietHandler):
                def do_POST(self) -> None:
                    status, said = reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                    content = json.dumps(said).encode()
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    with suppress(BrokenPipeError):  # a client that has lost patience
                        self.wfile.write(content)

            return serve_until_exit(stack, Handler)

        yield begin


@pytest.fixture
def colour_rows() -> list[Example]:
    """Things and their colours, in words that the tiny model knows."""
    colours = {"sky": "blue", "sea": "blue", "grass": "green", "leaf": "green", "blood": "red", "fire": "red"}
    return [
        Example(input=f"the {thing}", output=colour, id=thing, group=thing, source="test")
        for thing, colour in colours.items()
    ]


@pytest.fixture
def colour_job(tiny_params: BaseParams) -> Callable[[TrainParams, Path], Job]:
    """The job that trains the tiny model in a folder."""

    def job(params: TrainParams, folder: Path) -> Job:
        return Job(
            base=tiny_params,
            assets=folder,
            instruction="which colour",
            params=params,
            adapter=folder / "adapter",
            checkpoints=folder / "checkpoints",
        )

    return job


@pytest.fixture
def train_params() -> TrainParams:
    return TrainParams(
        method="lora",
        objective="auto",
        lora=LoraParams(rank=8, alpha=16, dropout=0.0, target_modules="all-linear"),
        precision="fp32",
        epochs=40,
        minutes=None,
        batch_size=3,
        learning_rate=0.01,
        warmup_ratio=0.1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_example_tokens=32,
        max_packed_tokens=64,
        gradient_checkpointing=False,
        class_weights="none",
        validations=5,
        validation_rows=10,
        early_stopping_patience=None,
        processes=1,
        checkpoint_seconds=0,
        seed=7,
    )
