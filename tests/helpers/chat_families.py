"""Small tokenizers whose chat templates behave like those of ten model families; written for these tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Say in one word whether the review is positive or negative. The battery lasts long, it works very well.",
    "user system assistant model tool answer instruction today date knowledge cutting You are a helpful assistant",
    "def add(a, b):\n    return a + b\n\n<table><tr><td>1</td></tr></table> Grüße aus Köln! 你好，世界 im_start im_end eot",
]


@dataclass(frozen=True)
class Family:
    """A tokenizer's control tokens and template.

    `end` is the token that ends an assistant's turn; `generation_eos` are those of generation_config.json. `tags` are
    added tokens that are not marked as special.
    """

    name: str
    build: Callable[[], Tokenizer]
    special: tuple[str, ...]
    template: str | None
    end: str
    eos: str
    bos: str | None = None
    tags: tuple[str, ...] = ()
    generation_eos: tuple[str, ...] = ()
    strips_right: tuple[str, ...] = ()


def byte_level() -> Tokenizer:
    """As GPT-2's, Llama 3's and Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentencepiece(*, prefix_space: bool) -> Callable[[], Tokenizer]:
    """As those converted from SentencePiece: with a space before the text in Llama 2's, Mistral's and Phi-3's."""

    def build() -> Tokenizer:
        spaces = normalizers.Replace(" ", "▁")
        learner = Tokenizer(models.BPE())
        learner.normalizer = spaces
        lines = [line for text in CORPUS for line in text.splitlines()]  # SentencePiece joins no line breaks
        learner.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, show_progress=False))
        learned = json.loads(learner.to_str())["model"]
        pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *learned["vocab"]]
        vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
        merges = [(one, other) for one, other in learned["merges"]]
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        prefix = [normalizers.Prepend("▁")] if prefix_space else []
        tokenizer.normalizer = normalizers.Sequence([*prefix, spaces])
        strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        tokenizer.decoder = decoders.Sequence(steps)
        return tokenizer

    return build


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a small helpful assistant.<|im_end|>\n' }}{% endif %}" + CHATML
)
QWEN_25 = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}\n"
    "{%- else %}\n    {{- '<|im_start|>system\nYou are the assistant of a cloud.<|im_end|>\n' }}\n{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'user' or message.role == 'assistant' %}\n"
    "        {{- '<|im_start|>' + message.role + '\n' + message.content }}\n"
    "        {%- for call in message.tool_calls or [] %}\n"
    "            {{- '<tool_call>\n' }}{{- call.function | tojson }}{{- '\n</tool_call>' }}\n        {%- endfor %}\n"
    "        {{- '<|im_end|>' + '\n' }}\n"
    "    {%- elif message.role == 'tool' %}\n"
    "        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}\n"
    "    {%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n"
)
QWEN_3 = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}\n"
    "        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}\n"
    "    {%- elif message.role == 'assistant' %}\n"
    "        {%- set said = message.content %}\n        {%- set thought = '' %}\n"
    "        {%- if '</think>' in said %}\n"
    "            {%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}\n"
    "            {%- set said = said.split('</think>')[-1].lstrip('\n') %}\n        {%- endif %}\n"
    "        {%- if loop.last %}\n"
    "            {{- '<|im_start|>assistant\n<think>\n' + thought + '\n</think>\n\n' + said }}\n"
    "        {%- else %}\n            {{- '<|im_start|>assistant\n' + said }}\n        {%- endif %}\n"
    "        {%- for call in message.tool_calls or [] %}\n"
    "            {{- '\n<tool_call>\n' }}{{- call.function | tojson }}{{- '\n</tool_call>' }}\n        {%- endfor %}\n"
    "        {{- '<|im_end|>\n' }}\n"
    "    {%- elif message.role == 'tool' %}\n"
    "        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}\n"
    "    {%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- '<think>\n\n</think>\n\n' }}\n    {%- endif %}\n{%- endif %}"
)
LLAMA_31 = (
    "{{- bos_token }}\n"
    "{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    "        {%- set date_string = strftime_now('%d %b %Y') %}\n    {%- else %}\n"
    "        {%- set date_string = '1 Jan 2024' %}\n    {%- endif %}\n{%- endif %}\n"
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set said = messages[0]['content']|trim %}\n"
    "    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set said = '' %}\n{%- endif %}\n"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' + said + '<|eot_id|>' }}\n"
    "{%- for message in messages %}\n"
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content']|trim + '<|eot_id|>' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n"
)
SMOLLM_3 = (
    "{# a comment first #}\n"
    "{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}\n"
    "{%- set mode = '/think' if enable_thinking else '/no_think' %}\n"
    "{{- '<|im_start|>system\nToday: ' ~ strftime_now('%d %B %Y') ~ '\nReasoning: ' ~ mode ~ '\n' }}\n"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content.rstrip() }}{%- endif %}\n"
    "{{- '<|im_end|>\n' }}\n"
    "{%- for message in messages if message.role != 'system' %}\n"
    "    {{- '<|im_start|>' ~ message.role ~ '\n' }}\n"
    "    {%- if message.role == 'assistant' and not enable_thinking %}{{- '<think>\n\n</think>\n' }}{%- endif %}\n"
    "    {{- message.content ~ '<|im_end|>\n' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n"
    "    {%- if not enable_thinking %}{{- '<think>\n\n</think>\n' }}{%- endif %}\n{%- endif %}"
)
GRANITE = (
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set said = messages[0]['content'] %}\n"
    "    {%- set rest = messages[1:] %}\n{%- else %}\n"
    "    {%- set said = \"Today's Date: \" + strftime_now('%B %d, %Y') + '.\nYou are an assistant.' %}\n"
    "    {%- set rest = messages %}\n{%- endif %}\n"
    "{{- '<|start_of_role|>system<|end_of_role|>' + said + '<|end_of_text|>\n' }}\n"
    "{%- for message in rest %}\n"
    "    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"
)
PHI_3 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + '<|end|>' + '\n' }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set said = message['content'] %}"
    "{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + said + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)

THINKING = ("<think>", "</think>")
TOOLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

FAMILIES = (
    Family("chatml", byte_level, IM, CHATML, "<|im_end|>", "<|im_end|>"),
    Family("smollm2", byte_level, IM, SMOLLM2, "<|im_end|>", "<|im_end|>", bos="<|im_start|>"),
    Family(
        "qwen2.5-base", byte_level, IM, QWEN_25, "<|im_end|>", "<|endoftext|>", tags=TOOLS,
        generation_eos=("<|im_end|>", "<|endoftext|>"),
    ),
    Family("qwen3", byte_level, IM, QWEN_3, "<|im_end|>", "<|im_end|>", tags=(*THINKING, *TOOLS)),
    Family(
        "llama3.1", byte_level,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"),
        LLAMA_31, "<|eot_id|>", "<|end_of_text|>", bos="<|begin_of_text|>",
        generation_eos=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    Family("smollm3", byte_level, IM, SMOLLM_3, "<|im_end|>", "<|im_end|>", tags=THINKING),
    Family(
        "granite", byte_level, ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"), GRANITE,
        "<|end_of_text|>", "<|end_of_text|>", bos="<|end_of_text|>",
    ),
    Family(
        "phi3", sentencepiece(prefix_space=True),
        ("<s>", "</s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        PHI_3, "<|end|>", "<|endoftext|>", bos="<s>", strips_right=("<|user|>", "<|assistant|>", "<|end|>"),
        generation_eos=("<|endoftext|>", "<|end|>"),
    ),
    Family(
        "gemma", sentencepiece(prefix_space=False), ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        GEMMA, "<end_of_turn>", "<eos>", bos="<bos>", tags=("\n\n", "<table>"), generation_eos=("<eos>", "<end_of_turn>"),
    ),
    Family(
        "mistral", sentencepiece(prefix_space=True), ("<s>", "</s>", "[INST]", "[/INST]"), MISTRAL, "</s>", "</s>",
        bos="<s>",
    ),
    Family(
        "deepseek-r1", byte_level, ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), DEEPSEEK_R1,
        "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>", bos="<｜begin▁of▁sentence｜>",
        tags=("<｜User｜>", "<｜Assistant｜>", *THINKING),
    ),
    Family(
        "base-without-template", byte_level, ("<|begin_of_text|>", "<|end_of_text|>"), None, "<|end_of_text|>",
        "<|end_of_text|>", bos="<|begin_of_text|>",
    ),
)  # fmt: skip
BY_NAME = {family.name: family for family in FAMILIES}


def family_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A new tokenizer of the family; it puts BOS before texts, as those with BOS do."""
    family = BY_NAME[name]
    backend = Tokenizer.from_str(_trained(family.build))
    backend.add_special_tokens([AddedToken(one, rstrip=one in family.strips_right) for one in family.special])
    backend.add_tokens([AddedToken(one, normalized=False) for one in family.tags])
    if family.bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, backend.token_to_id(family.bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=family.eos, bos_token=family.bos)
    tokenizer.chat_template = family.template
    return tokenizer


@cache
def _trained(build: Callable[[], Tokenizer]) -> str:
    return build().to_str()


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found
