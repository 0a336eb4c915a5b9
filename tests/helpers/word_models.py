"""A tiny random model with a word-level tokenizer, on disk in Hugging Face's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from random_llama import random_llama
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %} assistant {% endif %}"
)


def save_word_model(folder: Path, known: Sequence[str], positions: int) -> Path:
    """Write a random Llama that knows these words, and return its folder."""
    words = {word: position for position, word in enumerate(["<unk>", "</s>", *known])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    # Wide, so that words differ enough for an adapter to tell them apart.
    random_llama(len(words), positions=positions, eos=1, spread=0.2).save_pretrained(folder)
    return folder
