"""A base model with its adapters, answering conversations."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from peft import PeftModel
from transformers import PreTrainedModel

from perpetune.generation.answer import Answer, PromptTooLong
from perpetune.generation.common_prefix import common_prefix
from perpetune.generation.parameters import GenerationConfig
from perpetune.generation.request import GenerationRequest
from perpetune.inference.decoding import DecodeBatch, DecodeRequest
from perpetune.inference.json_grammar import GrammarCompiler
from perpetune.inference.label_head_scoring import before_input, head_probabilities
from perpetune.inference.label_scoring import label_log_probabilities
from perpetune.inference.likelihood import ScoredText, mean_losses
from perpetune.inference.merged_adapter import can_merge, merge_adapter
from perpetune.inference.prefix_cache import PrefixCache
from perpetune.model.adapters import is_adapter
from perpetune.model.base import Base, load_base, load_model
from perpetune.model.chat_format import answer_tokens, prompt_tokens
from perpetune.model.label_head import LabelHead, load_head
from perpetune.model.release import POOL
from perpetune.model.token_tree import groups_within
from perpetune.params import BaseParams
from perpetune.records import Message, last_said

if TYPE_CHECKING:
    from perpetune.classifiers.ensemble import Pool

# On a processor wider passes gain nothing, while attention among rows that may not see each other grows with them:
# in bf16 on one core, SmolLM2 took 46 ms a review in passes of 96 tokens, 40 of 224, 41 of 320 and 46 of 448.
CPU_FORWARD_TOKENS = 256

# Keys and values of answers being written take as many tokens as this many times those read at once: 190 MB for
# SmolLM2 in bf16, of 8,192 tokens. Reading costs arithmetic, keeping only memory.
DECODE_TOKENS_FACTOR = 4


def load_predictor(
    params: BaseParams, assets: Path, precision: Literal["auto", "fp32", "bf16"], batch_tokens: int
) -> Predictor:
    """Load the base model for answering; adapters are added to it by name.

    Raises PerpetuneError where the base model is missing.
    """
    return Predictor(load_base(params, assets, precision), batch_tokens, assets)


class Predictor:
    """A loaded base model with named adapters. Not thread safe: one thread calls it."""

    def __init__(self, base: Base, batch_tokens: int, assets: Path = Path("assets")) -> None:
        self.base = base
        self._batch_tokens = batch_tokens
        self._assets = assets
        self._adapted: PeftModel | None = None
        self._whole: dict[str, PreTrainedModel] = {}  # merged adapters and what was trained in full, beside the base
        self._merges = can_merge(base.model)
        self._heads: dict[str, LabelHead] = {}  # of the adapters that learned labels by one
        self._pools: dict[str, Pool] = {}  # of the adapters that a linear model may answer beside
        self._tails: dict[str, list[int]] = {}  # the same labels end every prompt: they are cut into tokens once
        self._prefixes = PrefixCache()
        self._grammars = GrammarCompiler(base.tokenizer, int(base.model.config.vocab_size))

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load what was trained: an adapter, or a model of its own if all weights were trained.

        The adapter is merged into a copy of the layers that it changes, or laid onto a base too large for copies.
        """
        self._prefixes.forget(name)
        self._heads.pop(name, None)
        self._pools.pop(name, None)
        if head := load_head(folder, self.base.model.device):
            self._heads[name] = head
        if (folder / POOL).is_dir():
            from perpetune.classifiers.ensemble import (
                load_pool,  # late: it brings scikit-learn, which a bare GPU machine lacks
            )

            self._pools[name] = load_pool(folder, self._assets)
        if not is_adapter(folder):
            self._whole[name] = load_model(folder, self.base.model.dtype)
        elif self._merges:
            self._whole[name] = merge_adapter(self.base.model, folder)
        elif self._adapted is None:
            self._adapted = PeftModel.from_pretrained(self.base.model, folder, adapter_name=name)
        else:
            self._adapted.load_adapter(str(folder), adapter_name=name)
        if self._adapted is not None:
            self._adapted.eval()

    def unload_adapter(self, name: str) -> None:
        """Free the adapter's memory; the base and other adapters stay."""
        self._prefixes.forget(name)
        self._heads.pop(name, None)
        self._pools.pop(name, None)
        if self._whole.pop(name, None) is not None:
            return
        assert self._adapted is not None
        if list(self._adapted.peft_config) == [name]:
            self._adapted.unload()
            self._adapted = None
        else:
            self._adapted.delete_adapter(name)

    def answer(
        self,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        labels: Sequence[str] | None,
        max_new_tokens: int,
        json_schema: str | None = None,
    ) -> list[Answer]:
        """Answer each conversation with the likeliest of `labels`, or freely where there are none.

        Free answers are greedy, satisfy `json_schema` where there is one and they end in time, and end at the end-of-turn token or after `max_new_tokens`. `adapter`
        None asks the base model. Raises PromptTooLong where a conversation exceeds the model's context.
        """
        limit = self._token_limit(labels, max_new_tokens)
        prompts = [prompt_tokens(self.base.tokenizer, messages) for messages in conversations]
        longest = max(map(len, prompts), default=0)
        if longest > limit:
            raise PromptTooLong(longest, limit)
        if labels is None:
            return self._generate_all(
                adapter, conversations, prompts, GenerationConfig(max_new_tokens, json_schema=json_schema)
            )
        with self._active(adapter) as model:
            beginning = self._shared_prefix(conversations, prompts)
            if adapter in self._heads:
                beginning = before_input(self._heads[adapter], beginning)
            answers = self._score_labels(model, adapter, beginning, prompts, labels)
        if pool := self._pools.get(adapter or ""):
            pooled = pool.pooled(answers, [last_said(messages) for messages in conversations])
            answers = [self._counted(answer) for answer in pooled]
        return answers

    def _counted(self, answer: Answer) -> Answer:
        """With the tokens of the label that it has now."""
        return replace(answer, completion_tokens=len(self._tail(answer.text)))

    def write(self, adapter: str | None, next_asked: Callable[[int], Sequence[GenerationRequest]]) -> None:
        """Write free answers until there is nothing left to write.

        Before each token `next_asked` is called with the number of answers being written, and what it returns is
        written along with them. Each is told of its own faults, among them PromptTooLong and BadSchema.
        """
        with self._active(adapter) as model:
            writing = DecodeBatch(model, self.base.tokenizer)
            while True:
                if asked := next_asked(len(writing)):
                    self._join(writing, model, adapter, asked)
                elif not writing:
                    return
                writing.step()

    def fits(self, messages: Sequence[Message], labels: Sequence[str] | None, max_new_tokens: int) -> bool:
        """Whether the model's context holds the conversation and an answer."""
        return len(prompt_tokens(self.base.tokenizer, messages)) <= self._token_limit(labels, max_new_tokens)

    def mean_losses(self, adapter: str | None, texts: Sequence[ScoredText]) -> list[float]:
        """The mean loss of each text in nats a token; `adapter` None asks the base model."""
        with self._active(adapter) as model:
            return mean_losses(model, texts, self._forward_tokens)

    def _token_limit(self, labels: Sequence[str] | None, max_new_tokens: int) -> int:
        """How many tokens a prompt may have: the context less the longest answer."""
        answer = max_new_tokens
        if labels is not None:
            answer = max(len(self._tail(label)) for label in labels)
        return self.context - answer

    @property
    def context(self) -> int:
        """How many tokens the model can read and write together."""
        return int(self.base.model.config.max_position_embeddings)

    @property
    def _forward_tokens(self) -> int:
        on_cpu = self.base.model.device.type == "cpu"
        return min(self._batch_tokens, CPU_FORWARD_TOKENS) if on_cpu else self._batch_tokens

    def _tail(self, label: str) -> list[int]:
        if label not in self._tails:
            self._tails[label] = answer_tokens(self.base.tokenizer, label)
        return self._tails[label]

    @contextmanager
    def _active(self, adapter: str | None) -> Iterator[PreTrainedModel]:
        if adapter in self._whole:
            yield self._whole[adapter]
        elif self._adapted is None:
            assert adapter is None, f"adapter {adapter} is not loaded"
            yield self.base.model
        elif adapter is None:
            with self._adapted.disable_adapter():
                yield self.base.model
        else:
            self._adapted.set_adapter(adapter)
            yield self.base.model

    def _shared_prefix(self, conversations: Sequence[Sequence[Message]], prompts: list[list[int]]) -> tuple[int, ...]:
        """What the prompts begin with before the first one's last message, and one token less than any of them.

        It is found by asking something else there: a single prompt does not show where its instruction ends.
        """
        if not prompts:
            return ()
        first = conversations[0]
        role = first[-1].role if first else "user"
        others = [
            prompt_tokens(self.base.tokenizer, (*first[:-1], Message(role=role, content=other))) for other in "a0"
        ]
        return common_prefix([*others, *(prompt[:-1] for prompt in prompts)])

    def _score_labels(
        self,
        model: PreTrainedModel,
        adapter: str | None,
        beginning: tuple[int, ...],
        prompts: list[list[int]],
        labels: Sequence[str],
    ) -> list[Answer]:
        """The likeliest label of each prompt, shortest prompts first so that passes are even and equal ones meet."""
        began = time.perf_counter()
        tails = [self._tail(label) for label in labels]
        reading = self._prefixes.read(model, adapter, beginning)
        beginning_seconds = (time.perf_counter() - began) / max(1, len(prompts))
        by_length = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), prompts[index]))
        rests = [prompts[index][len(beginning) :] for index in by_length]
        answers: dict[int, Answer] = {}
        for run in groups_within(rests, self._forward_tokens):
            began = time.perf_counter()
            here = [rests[position] for position in run]
            if adapter in self._heads:
                probabilities = head_probabilities(model, self._heads[adapter], here, labels, reading)
            else:
                scores = label_log_probabilities(model, here, tails, reading, self._forward_tokens)
                probabilities = scores.softmax(-1).tolist()
            seconds = beginning_seconds + (time.perf_counter() - began) / len(run)
            for position, row in zip(run, probabilities, strict=True):
                best = max(range(len(labels)), key=row.__getitem__)
                answers[by_length[position]] = Answer(
                    text=labels[best],
                    confidence=min(1.0, row[best]),
                    probabilities=dict(zip(labels, row, strict=True)),
                    prompt_tokens=len(prompts[by_length[position]]),
                    completion_tokens=len(tails[best]),
                    finish_reason="stop",
                    seconds=seconds,
                )
        return [answers[index] for index in range(len(prompts))]

    def _generate_all(
        self,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        prompts: list[list[int]],
        generation: GenerationConfig,
    ) -> list[Answer]:
        """Free, greedy answers, the shortest prompts first; others join as answers end."""
        answers: dict[int, Answer] = {}
        waiting = deque(sorted(range(len(prompts)), key=lambda index: len(prompts[index])))

        def ask(index: int) -> GenerationRequest:
            def answered(written: tuple[Answer, ...]) -> None:
                [answers[index]] = written

            return GenerationRequest(conversations[index], generation, answered, _raise)

        def next_asked(writing: int) -> list[GenerationRequest]:
            lengths = [len(prompts[index]) + generation.max_tokens for index in waiting]
            joining = _admitted(writing, lengths, DECODE_TOKENS_FACTOR * self._batch_tokens)
            return [ask(waiting.popleft()) for _ in range(joining)]

        self.write(adapter, next_asked)
        return [answers[index] for index in range(len(prompts))]

    def _join(
        self, writing: DecodeBatch, model: PreTrainedModel, adapter: str | None, asked: Sequence[GenerationRequest]
    ) -> None:
        ready = [one for one in map(self._with_decode_requests, asked) if one]
        if not ready:
            return
        prompts = [list(drafts[0].prompt) for _, drafts in ready]
        beginning = self._shared_prefix([one.messages for one, _ in ready], prompts)
        reading = self._prefixes.read(model, adapter, beginning)
        by_length = sorted((drafts for _, drafts in ready), key=lambda drafts: len(drafts[0].prompt))
        rests = [len(drafts[0].prompt) - len(beginning) for drafts in by_length]
        for run in _padded_batches(rests, self._batch_tokens):
            writing.join([draft for position in run for draft in by_length[position]], reading)

    def _with_decode_requests(self, asked: GenerationRequest) -> tuple[GenerationRequest, list[DecodeRequest]] | None:
        """What was asked, with a draft for each answer wanted; None where it cannot be answered, which it is told."""
        try:
            return asked, self._decode_requests(asked)
        except (
            Exception
        ) as fault:  # whatever a template or a schema of a client's may raise, it is that request's fault
            asked.failed(fault)
            return None

    def _decode_requests(self, asked: GenerationRequest) -> list[DecodeRequest]:
        generation = asked.generation
        prompt = prompt_tokens(self.base.tokenizer, asked.messages, generation.tools)
        limit = self._token_limit(None, generation.max_tokens)
        if len(prompt) > limit:
            raise PromptTooLong(len(prompt), limit)
        answers: dict[int, Answer] = {}

        def ended(index: int, answer: Answer) -> None:
            answers[index] = answer
            if len(answers) == generation.n:
                asked.answered(tuple(answers[position] for position in range(generation.n)))

        return [
            DecodeRequest(
                prompt=prompt,
                index=index,
                generation=generation,
                grammar=self._grammars.of(generation.json_schema) if generation.json_schema else None,
                on_delta=asked.on_delta,
                ended=partial(ended, index),
                failed=asked.failed,
                is_cancelled=asked.is_cancelled,
            )
            for index in range(generation.n)
        ]


def _raise(fault: Exception) -> None:
    raise fault


def _admitted(writing: int, lengths: Sequence[int], limit: int) -> int:
    """How many of those waiting, in order of rising length, join those writing; padded they hold `limit` tokens.

    Each time that others join they are read in a pass of their own, so some wait for a quarter of the places.
    """
    if not lengths:
        return 0
    rows = 0
    while rows < len(lengths) and (writing + rows + 1) * lengths[rows] <= limit:
        rows += 1
    if not writing:
        return max(1, rows)
    return rows if rows == len(lengths) or 4 * rows >= writing + rows else 0


def _padded_batches(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Cut places, in order of rising length, into runs of at most `limit` tokens when padded."""
    runs: list[list[int]] = []
    for position, length in enumerate(lengths):
        if runs and (len(runs[-1]) + 1) * length <= limit:
            runs[-1].append(position)
        else:
            runs.append([position])
    return runs
