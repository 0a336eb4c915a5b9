"""Control tokens, such as `<|im_end|>`, and how text that spells one remains text.

A tokenizer makes a control token of its spelling wherever it stands, so that a user's text could end its turn and forge
the next one. Spellings in messages are therefore marked before a template is rendered, and encoded as ordinary text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

from perpetune.generation.answer import PromptRejected

# An added token that is not marked as special is a control token only if it looks like one and the template writes it:
# tokenizers also add words, HTML tags and runs of spaces.
_LOOKS_LIKE_A_TAG = re.compile(r"[<\[]\S*[>\]]")
_MARK = str(mark_control_tokens("x", re.compile("x")))[0]  # before each marked spelling


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The tokens that the tokenizer itself marks as special."""
    return frozenset(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def tokens_written(tokenizer: PreTrainedTokenizerBase, text: str) -> frozenset[str]:
    """The added tokens in a template or in what it renders that look like control tokens."""
    return frozenset(
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if _LOOKS_LIKE_A_TAG.fullmatch(token.content) and token.content in text
    )


def pattern_of(tokens: Collection[str]) -> re.Pattern[str]:
    """A pattern of any of the tokens, the longest first; some tokenizers have thousands, so it is a tree of letters."""
    return re.compile(_tree(frozenset(filter(None, tokens))) or "(?!)")


def _tree(endings: frozenset[str]) -> str:
    by_first: dict[str, set[str]] = {}
    for ending in filter(None, endings):
        by_first.setdefault(ending[0], set()).add(ending[1:])
    branches = [re.escape(letter) + _tree(frozenset(rest)) for letter, rest in sorted(by_first.items())]
    optional = "?" if "" in endings and branches else ""
    return f"(?:{'|'.join(branches)}){optional}" if len(branches) > 1 or optional else "".join(branches)


def mark(value: Any, pattern: re.Pattern[str]) -> Any:
    """Mark each spelling in a string, or in the strings of a list or mapping; values without one stay as they are."""
    return mark_control_tokens(value, pattern) if has_spelling(value, pattern) else value


def has_spelling(value: Any, pattern: re.Pattern[str]) -> bool:
    if isinstance(value, str):
        return pattern.search(value) is not None
    if isinstance(value, Mapping):
        return any(has_spelling(each, pattern) for each in value.values())
    return isinstance(value, list | tuple) and any(has_spelling(each, pattern) for each in value)


def is_marked(text: str) -> bool:
    return _MARK in text


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a rendered text, without added BOS. Raises PromptRejected if the tokenizer cannot encode a marked one.

    A user's own marks only make text of what they enclose.
    """
    if not is_marked(text):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    try:
        return encode_marked_chat(tokenizer, text)
    except ValueError as fault:
        raise PromptRejected(
            f"a text spells a control token, which this tokenizer cannot read as text: {fault}",
            do="remove it from the text",
        ) from fault
