from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import jsonschema
import pytest
import torch
from byte_models import random_byte_model

from perpetune.generation.answer import Answer, PromptTooLong
from perpetune.generation.parameters import BadSchema, Delta, GenerationConfig
from perpetune.generation.request import GenerationRequest
from perpetune.generation.stop_sequences import StopFilter
from perpetune.inference.decoding.detokenizer import Detokenizer
from perpetune.inference.decoding.json_grammar import GrammarCompiler
from perpetune.inference.predictor import DECODE_TOKENS_FACTOR, Predictor
from perpetune.model.base import Base
from perpetune.model.chat.chat_format import prompt_tokens
from perpetune.output_schema import OutputSchema
from perpetune.records import Message

GREEDY = GenerationConfig(max_tokens=12)


def ask(text: str, instruction: str = "which colour") -> tuple[Message, ...]:
    return (Message(role="system", content=instruction), Message(role="user", content=text))


ASKED = [ask("the sky"), ask("a leaf is it ? " * 3), ask("sea"), ask("fire", "say"), ask("the sky")]


@pytest.fixture(scope="session")
def letters() -> Base:
    """Of its text little is valid UTF-8."""
    return random_byte_model(unused_words=3)


def write(
    base: Base, *wanted: tuple[Sequence[Message], GenerationConfig]
) -> tuple[list[tuple[Answer, ...]], list[Delta]]:
    """The answers to all, written together, and the pieces of the first."""
    answers: dict[int, tuple[Answer, ...]] = {}
    deltas: list[Delta] = []

    def fail(fault: Exception) -> None:
        raise fault

    def asked(position: int) -> GenerationRequest:
        messages, generation = wanted[position]
        callback = deltas.append if position == 0 else lambda delta: None
        return GenerationRequest(messages, generation, lambda those: answers.update({position: those}), fail, callback)

    waiting = [[asked(position) for position in range(len(wanted))]]
    Predictor(base, 1024).generate(None, lambda writing: waiting.pop() if waiting else [])
    return [answers[position] for position in range(len(wanted))], deltas


def one(base: Base, messages: Sequence[Message], generation: GenerationConfig) -> Answer:
    [[answer]], deltas = write(base, (messages, generation))
    assert "".join(delta.text for delta in deltas) == answer.text
    return answer


def generated(base: Base, messages: Sequence[Message], tokens: int) -> str:
    """What transformers' own loop writes."""
    prompt = torch.tensor([prompt_tokens(base.tokenizer, messages)])
    end = base.tokenizer.eos_token_id
    said = base.model.generate(  # type: ignore[operator]
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False, eos_token_id=end,
        pad_token_id=end,
    )  # fmt: skip
    return str(base.tokenizer.decode(said[0, prompt.shape[1] :], skip_special_tokens=True)).strip()


@pytest.mark.parametrize("batch_tokens", [16, 1024])
def test_greedy_answers_are_those_of_generate(tiny_base: Base, letters: Base, batch_tokens: int) -> None:
    for base in (tiny_base, letters):
        answers = Predictor(base, batch_tokens).answer(None, ASKED, None, 24)
        assert [answer.text for answer in answers] == [generated(base, messages, 24) for messages in ASKED]
        assert len({answer.text for answer in answers}) > 2


def test_answers_to_many_join_as_others_end(letters: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(letters.model)
    model.get_output_embeddings().weight.data[letters.tokenizer.eos_token_id] *= 3
    base = Base(model, letters.tokenizer, "")
    asked = [ask(f"{number} " * (1 + number % 3)) for number in range(12)]
    alone = [Predictor(base, 1024).answer(None, [each], None, 24)[0] for each in asked]
    assert len({answer.completion_tokens for answer in alone}) > 2, "they end at different times"
    predictor, beside = Predictor(base, 48), []
    generate = predictor.generate

    def noted(adapter: str | None, next_requests: Callable[[int], Sequence[GenerationRequest]]) -> None:
        def note(writing: int) -> Sequence[GenerationRequest]:
            joining = next_requests(writing)
            beside.append((writing, len(joining)))
            return joining

        generate(adapter, note)

    monkeypatch.setattr(predictor, "generate", noted)
    assert [answer.text for answer in predictor.answer(None, asked, None, 24)] == [answer.text for answer in alone]
    assert any(writing and joining for writing, joining in beside), "none waits for the slowest"
    shortest = min(answer.prompt_tokens for answer in alone) + 24
    assert max(map(sum, beside)) <= max(1, DECODE_TOKENS_FACTOR * 48 // shortest)


def test_answers_that_join_and_leave_change_no_other(tiny_base: Base) -> None:
    limits = [7, 20, 3, 12, 1]
    alone = [one(tiny_base, asked, GenerationConfig(limit)).text for asked, limit in zip(ASKED, limits, strict=True)]
    answers: dict[int, str] = {}
    writing_at_each_step: list[int] = []

    def answered(position: int) -> GenerationRequest:
        def put(those: tuple[Answer, ...]) -> None:
            answers[position] = those[0].text

        return GenerationRequest(
            ASKED[position], GenerationConfig(limits[position]), put, lambda fault: pytest.fail(str(fault))
        )

    def next_requests(writing: int) -> list[GenerationRequest]:
        step = len(writing_at_each_step)
        writing_at_each_step.append(writing)
        return [answered(step // 2)] if step % 2 == 0 and step // 2 < len(ASKED) else []

    Predictor(tiny_base, 1024).generate(None, next_requests)
    assert [answers[position] for position in range(len(ASKED))] == alone
    assert max(writing_at_each_step) > 1


def test_a_sample_is_its_seeds_own_whoever_shares_its_batch(letters: Base) -> None:
    sampled = GenerationConfig(max_tokens=20, temperature=1.0, seed=5, n=3)
    [alone], deltas = write(letters, (ASKED[0], sampled))
    [together, *_], _ = write(letters, (ASKED[0], sampled), (ASKED[1], GREEDY), (ASKED[3], replace(sampled, seed=9)))
    assert [answer.text for answer in alone] == [answer.text for answer in together]
    assert len({answer.text for answer in alone}) == 3, "each of n answers draws for itself"
    for index, answer in enumerate(alone):
        assert "".join(delta.text for delta in deltas if delta.index == index) == answer.text
    assert one(letters, ASKED[0], replace(sampled, n=1, seed=6)).text == alone[1].text
    unseeded = replace(sampled, n=1, seed=None)
    assert one(letters, ASKED[0], unseeded).text != one(letters, ASKED[0], unseeded).text


@pytest.mark.slow
def test_samples_follow_temperature_and_top_p(tiny_base: Base) -> None:
    first = GenerationConfig(max_tokens=1, temperature=2.0, seed=1, n=4000, top_logprobs=20)
    [answers], _ = write(tiny_base, (ASKED[0], first))
    weighed = next(answer.logprobs[0] for answer in answers if answer.logprobs)
    tempered = torch.tensor([value for _, value in weighed.top]).div(2).exp()
    counted = [sum(answer.text == word for answer in answers) for word, _ in weighed.top[:5]]
    share = torch.tensor(counted) / sum(counted)
    assert share.tolist() == pytest.approx((tempered[:5] / tempered[:5].sum()).tolist(), abs=0.04)

    [few], _ = write(tiny_base, (ASKED[0], replace(first, temperature=1.0, top_p=0.5, n=300)))
    nucleus: list[str] = []
    mass = 0.0
    for word, value in weighed.top:
        if mass < 0.5:
            nucleus.append(word)
        mass += float(torch.tensor(value).exp())
    assert {answer.text for answer in few if answer.text} <= set(nucleus)
    tiny_nucleus = one(tiny_base, ASKED[0], replace(first, n=1, temperature=1.0, top_p=1e-9, max_tokens=12))
    assert tiny_nucleus.text == one(tiny_base, ASKED[0], GREEDY).text


def test_penalties_keep_words_from_coming_again(tiny_base: Base) -> None:
    plain = one(tiny_base, ASKED[0], GREEDY).text.split()
    assert len(set(plain)) < len(plain)
    once = one(tiny_base, ASKED[0], replace(GREEDY, presence_penalty=100.0)).text.split()
    assert len(set(once)) == len(once)
    assert one(tiny_base, ASKED[0], replace(GREEDY, frequency_penalty=100.0)).text.split() == once
    assert once[0] == plain[0]


def test_text_ends_before_a_stop_string(tiny_base: Base) -> None:
    whole = one(tiny_base, ASKED[0], GREEDY)
    words = whole.text.split()
    assert len(words) > 3
    stop = f"{words[2]} {words[3]}"
    stopped = one(tiny_base, ASKED[0], replace(GREEDY, stop=("never said", stop)))
    assert stopped.text == whole.text[: whole.text.index(stop)].strip()
    assert stopped.finish_reason == "stop"
    assert stopped.completion_tokens < whole.completion_tokens


@pytest.mark.parametrize(
    ("pieces", "stop", "said"),
    [
        (["a", "b", "c"], (), ["a", "b", "c"]),
        ([" ", "\n a", " ", "b ", "\n"], (), ["a", " b"]),
        (["a<", "e", "nd>b"], ("<end>",), ["a"]),
        (["a<", "en", "t"], ("<end>",), ["a", "<ent"]),
        (["aab", "aac"], ("aac",), ["aab"]),
        (["aa", "aac"], ("aac",), ["aa"]),
        (["x two one"], ("one", "two"), ["x"]),
        (["\n", "a"], ("\n",), []),
        (["a", "b<"], ("<end>",), ["a", "b", "<"]),
    ],
)
def test_what_may_begin_a_stop_string_is_held_back(pieces: list[str], stop: tuple[str, ...], said: list[str]) -> None:
    text = StopFilter(stop)
    found = []
    for piece in pieces:
        found.append(text.add(piece))
        if text.stopped:
            break
    found.append("" if text.stopped else text.end())
    assert [piece for piece in found if piece] == said
    assert text.text == "".join(said)


def test_chunks_end_at_complete_characters(letters: Base) -> None:
    text = "naïve 🙂 ë"
    pieces = Detokenizer(letters.tokenizer)
    tokens = letters.tokenizer(text, add_special_tokens=False)["input_ids"]
    told = [pieces.add(token) for token in tokens]
    assert "".join(told) == text
    assert "🙂" in told
    assert pieces.add(tokens[2]) == "", "half a character"
    assert pieces.rest() == "\N{REPLACEMENT CHARACTER}"


def test_log_probabilities_are_the_models_own(tiny_base: Base) -> None:
    asked = replace(GREEDY, top_logprobs=3, temperature=3.0, seed=2, frequency_penalty=1.0)
    [[answer]], deltas = write(tiny_base, (ASKED[0], asked))
    assert answer.logprobs is not None
    assert sum((delta.logprobs or () for delta in deltas), ()) == answer.logprobs
    prompt = prompt_tokens(tiny_base.tokenizer, ASKED[0])
    tokens = [int(tiny_base.tokenizer.convert_tokens_to_ids(one.token)) for one in answer.logprobs]  # type: ignore[arg-type]
    with torch.inference_mode():
        likely = tiny_base.model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
    for step, (token, weighed) in enumerate(zip(tokens, answer.logprobs, strict=True)):
        there = likely[len(prompt) - 1 + step]
        assert weighed.logprob == pytest.approx(float(there[token]), abs=1e-4)
        assert [value for _, value in weighed.top] == pytest.approx(there.topk(3).values.tolist(), abs=1e-4)
    assert one(tiny_base, ASKED[0], replace(asked, top_logprobs=None)).logprobs is None


def test_likelihood_is_the_geometric_mean_of_the_tokens_and_changes_no_answer(tiny_base: Base) -> None:
    asked = replace(GREEDY, top_logprobs=0, temperature=1.5, seed=5)
    found = one(tiny_base, ASKED[0], asked)
    assert found.logprobs and found.likelihood is not None
    assert found.likelihood == pytest.approx(math.exp(fmean(token.logprob for token in found.logprobs)), rel=1e-4)
    without = one(tiny_base, ASKED[0], replace(asked, top_logprobs=None))
    assert (without.text, without.likelihood) == (found.text, found.likelihood)
    empty = one(tiny_base, ASKED[0], replace(GREEDY, stop=(found.text[:1],), seed=5, temperature=1.5))
    assert empty.likelihood is None or 0 <= empty.likelihood <= 1


SCHEMA = {
    "type": "object",
    "properties": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}, "good": {"type": "boolean"}},
    "required": ["stars", "good"],
    "additionalProperties": False,
}


def test_answers_satisfy_their_schema(letters: Base) -> None:
    asked = GenerationConfig(max_tokens=200, json_schema=json.dumps(SCHEMA), temperature=1.0, seed=3, n=4)
    [answers, [free]], _ = write(letters, (ASKED[0], asked), (ASKED[1], GREEDY))
    for answer in answers:
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.text), SCHEMA)
    assert free.text == one(letters, ASKED[1], GREEDY).text, "others write as they like"
    assert one(letters, ASKED[0], replace(asked, max_tokens=3, n=1)).finish_reason == "length"


def test_evaluation_is_held_to_the_schema_too(letters: Base) -> None:
    predictor = Predictor(letters, 1024)
    for answer in predictor.answer(None, ASKED[:2], None, 200, json.dumps(SCHEMA)):
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.text), SCHEMA)
    assert predictor.answer(None, ASKED[:1], None, 3, json.dumps(SCHEMA))[0].finish_reason == "length"


def test_the_grammar_takes_what_is_trained_on(letters: Base) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "near": {"type": "array", "items": {"type": "string"}}},
    }
    written = OutputSchema(schema).canonical('{"near": ["the \\"Bell\\"", "Caf\\u00e9"], "name": "A: b, {c}"}')
    grammar = GrammarCompiler(letters.tokenizer, len(letters.tokenizer), [0]).compile(json.dumps(schema))
    for token in letters.tokenizer(written, add_special_tokens=False).input_ids:
        assert grammar.allow(torch.zeros(len(letters.tokenizer)))[token] == 0
        grammar.accept(token)
    assert grammar.is_complete


@pytest.mark.parametrize("schema", ["{", "[]", '{"type": "colour"}', '{"type": "object", "properties": 3}'])
def test_a_bad_schema_fails_its_own_request_alone(letters: Base, schema: str) -> None:
    faults: list[Exception] = []
    answers: list[tuple[Answer, ...]] = []
    waiting = [
        [
            GenerationRequest(
                ASKED[0], replace(GREEDY, json_schema=schema), lambda those: pytest.fail("answered"), faults.append
            ),
            GenerationRequest(ask("the " * 500), GREEDY, lambda those: pytest.fail("answered"), faults.append),
            GenerationRequest(ASKED[1], GREEDY, answers.append, lambda fault: pytest.fail(str(fault))),
        ]
    ]
    Predictor(letters, 1024).generate(None, lambda writing: waiting.pop() if waiting else [])
    assert [type(fault) for fault in faults] == [BadSchema, PromptTooLong]
    assert [answer.text for [answer] in answers] == [one(letters, ASKED[1], GREEDY).text]


def test_an_answer_that_is_given_up_is_written_no_further(letters: Base) -> None:
    deltas: list[Delta] = []
    others: list[tuple[Answer, ...]] = []
    gone = GenerationRequest(
        ASKED[0],
        GenerationConfig(max_tokens=200),
        lambda those: pytest.fail("answered"),
        lambda fault: pytest.fail(str(fault)),
        deltas.append,
        lambda: len(deltas) > 2,
    )
    other = GenerationRequest(ASKED[1], GREEDY, others.append, lambda fault: pytest.fail(str(fault)))
    waiting = [[gone, other]]
    Predictor(letters, 1024).generate(None, lambda writing: waiting.pop() if waiting else [])
    assert len(deltas) == 3
    assert others[0][0].text == one(letters, ASKED[1], GREEDY).text
