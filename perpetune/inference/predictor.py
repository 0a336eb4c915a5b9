"""Predictions of a base model with its adapters: label probabilities and generated text."""

from __future__ import annotations

import math
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

from perpetune.generation.answer import Answer, PromptTooLong, new_batch
from perpetune.generation.common_prefix import common_prefix
from perpetune.generation.parameters import GenerationConfig
from perpetune.generation.prompt_format import TEMPLATE_AS_IT_IS, PromptFormat
from perpetune.generation.request import GenerationRequest
from perpetune.inference.caches.prefix_cache import EMPTY_PREFIX, PrefixCache
from perpetune.inference.decoding.batch import DecodeBatch, DecodeRequest
from perpetune.inference.decoding.json_grammar import GrammarCompiler
from perpetune.inference.labels.label_head_scoring import before_input, head_probabilities
from perpetune.inference.labels.label_scoring import label_log_probabilities
from perpetune.inference.likelihood import ScoredText, mean_losses
from perpetune.inference.merged_adapter import can_merge, merge_adapter
from perpetune.inference.not_a_number import NotANumber
from perpetune.inference.row_scoring import row_head_probabilities, row_label_log_probabilities, row_mean_loss
from perpetune.model.adapters import is_adapter
from perpetune.model.base import Base, load_base, load_model
from perpetune.model.chat.chat_tokenizer import ChatTokenizer
from perpetune.model.label_head import LabelHead, load_head
from perpetune.model.parts import context_length
from perpetune.model.release import POOL
from perpetune.model.trees.packing import longest_in_tree
from perpetune.model.trees.token_tree import groups_within
from perpetune.params import BaseParams
from perpetune.records import Message, last_user_message

if TYPE_CHECKING:
    from perpetune.classifiers.ensemble import Pool

# Tokens of a forward pass on a CPU. Larger passes only add masked attention between rows: in bf16 on one core, SmolLM2
# took 46 ms a review in passes of 96 tokens, 40 at 224, 41 at 320 and 46 at 448.
CPU_FORWARD_TOKENS = 256

# The context of a model that has no limit, as a state space.
UNLIMITED = 1 << 20

# The key-value cache of sequences being decoded holds this many times `batch_tokens`: 190 MB for SmolLM2 in bf16 with
# 8,192 tokens.
DECODE_TOKENS_FACTOR = 4


def load_predictor(
    params: BaseParams, assets: Path, precision: Literal["auto", "fp32", "bf16"], batch_tokens: int
) -> Predictor:
    """Load the base model. Raises PerpetuneError if it is missing."""
    return Predictor(load_base(params, assets, precision), batch_tokens, assets)


class Predictor:
    """A loaded base model with named adapters. Not thread-safe."""

    def __init__(self, base: Base, batch_tokens: int, assets: Path = Path("assets")) -> None:
        self.base = base
        self._batch_tokens = batch_tokens
        self._assets = assets
        self._adapted: PeftModel | None = None
        self._merged: dict[str, PreTrainedModel] = {}  # merged adapters and fully trained models
        self._merges = can_merge(base.model)
        self._heads: dict[str, LabelHead] = {}  # by adapter
        self._pools: dict[str, Pool] = {}  # by adapter
        self.chat = ChatTokenizer(base.tokenizer, getattr(base.model.generation_config, "eos_token_id", None))
        self._prompt_format = TEMPLATE_AS_IT_IS  # of the answers being computed
        self._label_tokens: dict[tuple[str, PromptFormat], list[int]] = {}  # tokenized once
        self._prefixes = PrefixCache()
        words = int(base.model.config.get_text_config().vocab_size)
        self._grammars = GrammarCompiler(base.tokenizer, words, self.chat.stops)
        self._longest_in_tree = longest_in_tree(base.model)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter or a fully trained model, with its label head and pool.

        An adapter is merged into a copy of the layers that it changes, unless the base is too large for copies.
        """
        self._prefixes.evict(name)
        self._heads.pop(name, None)
        self._pools.pop(name, None)
        if head := load_head(folder, self.base.model.device):
            self._heads[name] = head
        if (folder / POOL).is_dir():
            from perpetune.classifiers.ensemble import (
                load_pool,  # late: scikit-learn may be missing on a GPU machine
            )

            self._pools[name] = load_pool(folder, self._assets)
        if not is_adapter(folder):
            self._merged[name] = load_model(folder, self.base.model.dtype)
        elif self._merges:
            self._merged[name] = merge_adapter(self.base.model, folder)
        elif self._adapted is None:
            self._adapted = PeftModel.from_pretrained(self.base.model, folder, adapter_name=name)
        else:
            self._adapted.load_adapter(str(folder), adapter_name=name)
        if self._adapted is not None:
            self._adapted.eval()

    def unload_adapter(self, name: str) -> None:
        """Free the adapter's memory."""
        self._prefixes.evict(name)
        self._heads.pop(name, None)
        self._pools.pop(name, None)
        if self._merged.pop(name, None) is not None:
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
        *,
        prompt_format: PromptFormat = TEMPLATE_AS_IT_IS,
        tools: Sequence[str | None] | None = None,
    ) -> list[Answer]:
        """Answer each conversation with the most likely of `labels`, or with free text if `labels` is None.

        Free text is decoded greedily up to the end-of-turn token or `max_new_tokens`, and satisfies `json_schema` if
        one is given and the answer is not cut off. `tools` are those that each prompt offers, as JSON. `adapter` None is the base model. Raises PromptTooLong if a
        conversation exceeds the context.
        """
        self._prompt_format = prompt_format
        limit = self._token_limit(labels, max_new_tokens)
        offered = tools or [None] * len(conversations)
        prompts = [
            self.chat.prompt(messages, each, prompt_format)
            for messages, each in zip(conversations, offered, strict=True)
        ]
        longest = max(map(len, prompts), default=0)
        if longest > limit:
            raise PromptTooLong(longest, limit, self.context - limit)
        if labels is None:
            generation = GenerationConfig(max_new_tokens, json_schema=json_schema)
            return self._generate_all(adapter, conversations, prompts, generation, prompt_format, offered)
        with self._active(adapter) as model:
            answers = self._answer_with_labels(model, adapter, conversations, prompts, labels, prompt_format)
        if pool := self._pools.get(adapter or ""):
            pooled = pool.combine(answers, [last_user_message(messages) for messages in conversations])
            answers = [self._with_token_count(answer) for answer in pooled]
        return answers

    def _with_token_count(self, answer: Answer) -> Answer:
        """The answer with the token count of its label, which pooling may have changed."""
        return replace(answer, completion_tokens=len(self._tokens_of_label(answer.text)))

    def generate(self, adapter: str | None, next_requests: Callable[[int], Sequence[GenerationRequest]]) -> None:
        """Generate free text until no request is left.

        Before each token `next_requests` is called with the number of sequences being decoded, and the requests that
        it returns join the batch. A request's errors, such as PromptTooLong and BadSchema, go to its `on_error`.
        """
        with self._active(adapter) as model:
            together, alone = (
                DecodeBatch(model, self.base.tokenizer, self.chat.stops, alone=one_by_one)
                for one_by_one in (False, True)
            )
            while True:
                if request := next_requests(len(together) + len(alone)):
                    self._join(together, alone, model, adapter, request)
                elif not together and not alone:
                    return
                together.step()
                alone.step()

    def fits(
        self,
        messages: Sequence[Message],
        labels: Sequence[str] | None,
        max_new_tokens: int,
        prompt_format: PromptFormat = TEMPLATE_AS_IT_IS,
        tools: str | None = None,
    ) -> bool:
        """Whether the conversation and an answer fit the model's context."""
        tokens = self.chat.prompt(messages, tools, prompt_format)
        return len(tokens) <= self._token_limit(labels, max_new_tokens)

    def mean_losses(self, adapter: str | None, texts: Sequence[ScoredText]) -> list[float]:
        """The mean loss of each text in nats per token; `adapter` None is the base model."""
        with self._active(adapter) as model:
            in_tree, alone = self._split([len(text.tokens) for text in texts])
            losses = mean_losses(model, [texts[position] for position in in_tree], self._forward_tokens)
            losses += [row_mean_loss(model, texts[position]) for position in alone]
            return [loss for _, loss in sorted(zip((*in_tree, *alone), losses, strict=True))]

    def _split(self, lengths: Sequence[int]) -> tuple[list[int], list[int]]:
        """The indices of rows that token trees may hold, and of those that are read one by one."""
        alone = [length > self._longest_in_tree for length in lengths]
        return [i for i, one in enumerate(alone) if not one], [i for i, one in enumerate(alone) if one]

    def _token_limit(self, labels: Sequence[str] | None, max_new_tokens: int) -> int:
        """The maximum length of a prompt: the context less the longest answer."""
        answer = max_new_tokens
        if labels is not None:
            answer = max(len(self._tokens_of_label(label)) for label in labels)
        return self.context - answer

    @property
    def context(self) -> int:
        """The model's context length, in tokens."""
        return context_length(self.base.model.config) or UNLIMITED

    @property
    def _forward_tokens(self) -> int:
        on_cpu = self.base.model.device.type == "cpu"
        return min(self._batch_tokens, CPU_FORWARD_TOKENS) if on_cpu else self._batch_tokens

    def _tokens_of_label(self, label: str) -> list[int]:
        key = label, self._prompt_format
        if key not in self._label_tokens:
            self._label_tokens[key] = self.chat.answer(*key)
        return self._label_tokens[key]

    @contextmanager
    def _active(self, adapter: str | None) -> Iterator[PreTrainedModel]:
        if adapter in self._merged:
            yield self._merged[adapter]
        elif self._adapted is None:
            assert adapter is None, f"adapter {adapter} is not loaded"
            yield self.base.model
        elif adapter is None:
            with self._adapted.disable_adapter():
                yield self.base.model
        else:
            self._adapted.set_adapter(adapter)
            yield self.base.model

    def _shared_prefix(
        self, conversations: Sequence[Sequence[Message]], prompts: list[list[int]], prompt_format: PromptFormat
    ) -> tuple[int, ...]:
        """The common prefix of the prompts up to the first one's last message, shorter than each prompt.

        It is found with other last messages: one prompt does not show where its instruction ends.
        """
        if not prompts:
            return ()
        first = conversations[0]
        role = first[-1].role if first else "user"
        others = [
            self.chat.prompt((*first[:-1], Message(role=role, content=other)), chosen=prompt_format) for other in "a0"
        ]
        return common_prefix([*others, *(prompt[:-1] for prompt in prompts)])

    def _answer_with_labels(
        self,
        model: PreTrainedModel,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        prompts: list[list[int]],
        labels: Sequence[str],
        prompt_format: PromptFormat,
    ) -> list[Answer]:
        """The most likely label of each prompt, from token trees if the model can read them."""
        longest = max(len(self._tokens_of_label(label)) for label in labels)
        in_tree, alone = self._split([len(prompt) + longest for prompt in prompts])
        here = [prompts[position] for position in in_tree]
        prefix = self._shared_prefix([conversations[position] for position in in_tree], here, prompt_format)
        if adapter in self._heads:
            prefix = before_input(self._heads[adapter], prefix)
        answers = self._score_labels(model, adapter, prefix, here, labels) if here else []
        answers += [self._score_labels_alone(model, adapter, prompts[position], labels) for position in alone]
        return [answer for _, answer in sorted(zip((*in_tree, *alone), answers, strict=True), key=lambda pair: pair[0])]

    def _score_labels_alone(
        self, model: PreTrainedModel, adapter: str | None, prompt: list[int], labels: Sequence[str]
    ) -> Answer:
        began = time.perf_counter()
        if adapter in self._heads:
            row = row_head_probabilities(model, self._heads[adapter], prompt, labels)
        else:
            tokens = [self._tokens_of_label(label) for label in labels]
            row = row_label_log_probabilities(model, prompt, tokens, self._forward_tokens).softmax(-1).tolist()
        return self._label_answer(labels, row, len(prompt), time.perf_counter() - began)

    def _label_answer(self, labels: Sequence[str], row: Sequence[float], prompt_tokens: int, seconds: float) -> Answer:
        """The most likely label as an answer. Raises NotANumber if a probability is not finite."""
        best = max(range(len(labels)), key=row.__getitem__)
        if not all(map(math.isfinite, row)):
            raise NotANumber("the label probabilities")
        return Answer(
            text=labels[best],
            confidence=min(1.0, row[best]),
            probabilities=dict(zip(labels, row, strict=True)),
            prompt_tokens=prompt_tokens,
            completion_tokens=len(self._tokens_of_label(labels[best])),
            finish_reason="stop",
            seconds=seconds,
        )

    def _score_labels(
        self,
        model: PreTrainedModel,
        adapter: str | None,
        prefix: tuple[int, ...],
        prompts: list[list[int]],
        labels: Sequence[str],
    ) -> list[Answer]:
        """The most likely label of each prompt; sorted by length, so that batches are even and equal prompts meet."""
        began = time.perf_counter()
        label_tokens = [self._tokens_of_label(label) for label in labels]
        cached = self._prefixes.get(model, adapter, prefix)
        prefix_seconds = (time.perf_counter() - began) / max(1, len(prompts))
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), prompts[index]))
        rests = [prompts[index][len(prefix) :] for index in order]
        answers: dict[int, Answer] = {}
        for batch_rows in groups_within(rests, self._forward_tokens):
            began = time.perf_counter()
            here = [rests[position] for position in batch_rows]
            if adapter in self._heads:
                probabilities = head_probabilities(model, self._heads[adapter], here, labels, cached)
            else:
                scores = label_log_probabilities(model, here, label_tokens, cached, self._forward_tokens)
                probabilities = scores.softmax(-1).tolist()
            seconds, batch = prefix_seconds + (time.perf_counter() - began) / len(batch_rows), new_batch()
            for position, row in zip(batch_rows, probabilities, strict=True):
                answer = self._label_answer(labels, row, len(prompts[order[position]]), seconds)
                answers[order[position]] = replace(answer, batch=batch)
        return [answers[index] for index in range(len(prompts))]

    def _generate_all(
        self,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        prompts: list[list[int]],
        generation: GenerationConfig,
        prompt_format: PromptFormat,
        tools: Sequence[str | None],
    ) -> list[Answer]:
        """Greedy free text, shortest prompts first; others join the batch as sequences end, so it is one batch."""
        answers: dict[int, Answer] = {}
        batch_name = new_batch()
        waiting = deque(sorted(range(len(prompts)), key=lambda index: len(prompts[index])))

        def request(index: int) -> GenerationRequest:
            def on_answers(written: tuple[Answer, ...]) -> None:
                [answer] = written
                answers[index] = replace(answer, batch=batch_name)

            asked = replace(generation, tools=tools[index])
            return GenerationRequest(conversations[index], asked, on_answers, _raise, prompt_format=prompt_format)

        def next_requests(batch: int) -> list[GenerationRequest]:
            lengths = [len(prompts[index]) + generation.max_tokens for index in waiting]
            joining = _admitted(batch, lengths, DECODE_TOKENS_FACTOR * self._batch_tokens)
            return [request(waiting.popleft()) for _ in range(joining)]

        self.generate(adapter, next_requests)
        return [answers[index] for index in range(len(prompts))]

    def _join(
        self,
        together: DecodeBatch,
        alone: DecodeBatch,
        model: PreTrainedModel,
        adapter: str | None,
        joining: Sequence[GenerationRequest],
    ) -> None:
        prepared = [one for one in map(self._with_decode_requests, joining) if one]
        in_tree, by_itself = self._split(
            [len(requests[0].prompt) + one.generation.max_tokens for one, requests in prepared]
        )
        for position in by_itself:
            alone.add(prepared[position][1], EMPTY_PREFIX)
        if in_tree:
            self._join_padded(together, model, adapter, [prepared[position] for position in in_tree])

    def _join_padded(
        self,
        batch: DecodeBatch,
        model: PreTrainedModel,
        adapter: str | None,
        prepared: Sequence[tuple[GenerationRequest, list[DecodeRequest]]],
    ) -> None:
        prompts = [list(requests[0].prompt) for _, requests in prepared]
        prefix = self._shared_prefix([one.messages for one, _ in prepared], prompts, prepared[0][0].prompt_format)
        cached = self._prefixes.get(model, adapter, prefix)
        order = sorted((requests for _, requests in prepared), key=lambda requests: len(requests[0].prompt))
        rests = [len(requests[0].prompt) - len(prefix) for requests in order]
        for batch_rows in _padded_batches(rests, self._batch_tokens):
            batch.add([each for position in batch_rows for each in order[position]], cached)

    def _with_decode_requests(self, request: GenerationRequest) -> tuple[GenerationRequest, list[DecodeRequest]] | None:
        """The request with one decode request per answer; None, after `on_error`, if it is invalid."""
        try:
            return request, self._decode_requests(request)
        except Exception as fault:  # a chat template or a client's schema may raise anything
            request.on_error(fault)
            return None

    def _decode_requests(self, request: GenerationRequest) -> list[DecodeRequest]:
        generation = request.generation
        prompt = self.chat.prompt(request.messages, generation.tools, request.prompt_format)
        limit = self._token_limit(None, generation.max_tokens)
        if len(prompt) > limit:
            raise PromptTooLong(len(prompt), limit, self.context - limit)
        answers: dict[int, Answer] = {}

        def end(index: int, answer: Answer) -> None:
            answers[index] = answer
            if len(answers) == generation.n:
                request.on_answers(tuple(answers[position] for position in range(generation.n)))

        return [
            DecodeRequest(
                prompt=prompt,
                index=index,
                generation=generation,
                grammar=self._grammars.compile(generation.json_schema) if generation.json_schema else None,
                on_delta=request.on_delta,
                on_end=partial(end, index),
                on_error=request.on_error,
                is_cancelled=request.is_cancelled,
            )
            for index in range(generation.n)
        ]


def _raise(fault: Exception) -> None:
    raise fault


def _admitted(batch: int, lengths: Sequence[int], limit: int) -> int:
    """How many waiting sequences, sorted by length, join a batch of at most `limit` padded tokens.

    Joining costs a forward pass of its own, so they wait until they make up a quarter of the batch.
    """
    if not lengths:
        return 0
    rows = 0
    while rows < len(lengths) and (batch + rows + 1) * lengths[rows] <= limit:
        rows += 1
    if not batch:
        return max(1, rows)
    return rows if rows == len(lengths) or 4 * rows >= batch + rows else 0


def _padded_batches(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Split indices of sequences, sorted by length, into batches of at most `limit` padded tokens."""
    runs: list[list[int]] = []
    for position, length in enumerate(lengths):
        if runs and (len(runs[-1]) + 1) * length <= limit:
            runs[-1].append(position)
        else:
            runs.append([position])
    return runs
