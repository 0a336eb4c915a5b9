"""Constraining answers to the task's output schema."""

from __future__ import annotations

from dataclasses import replace

from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import Release


def constrained(generation: GenerationConfig, release: Release) -> GenerationConfig:
    """The generation with the release's output schema, unless the client sent response_format or tools."""
    if generation.has_response_format or generation.tools is not None or release.output_schema is None:
        return generation
    return replace(generation, json_schema=release.json_schema)
