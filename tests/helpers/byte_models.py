"""A random model that writes bytes, so that a grammar constrains all of its text."""

from __future__ import annotations

from random_llama import random_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from perpetune.model.base import Base


def random_byte_model(unused_words: int = 0) -> Base:
    """A model whose number of words is larger than its tokenizer's by `unused_words`, as that of models that round it up."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: position for position, word in enumerate(["</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    network = random_llama(len(words) + unused_words, positions=512, eos=0, spread=0.2)
    return Base(network.eval(), fast, "")
