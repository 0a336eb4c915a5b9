"""Answers of a task with an output schema satisfy it, unless a request says itself what it wants."""

from __future__ import annotations

from dataclasses import replace

from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import Release


def constrained(generation: GenerationConfig, release: Release) -> GenerationConfig:
    """The generation, held to the release's schema. A response_format or tools of the client's own go before it."""
    if generation.has_response_format or generation.tools is not None or release.output_schema is None:
        return generation
    return replace(generation, json_schema=release.json_schema)
