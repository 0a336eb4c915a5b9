"""The generated pages name and describe all that there is, and the written ones name nothing that there is not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_page import api_page, metrics, metrics_page, openapi
from benchmarks_page import ABOUT, RESULTS, number
from commands_page import commands, commands_page
from decisions_page import decisions_page
from events_page import events, events_page
from markdown_text import DOCS, ROOT, linked
from mlflow_names import METRICS, RUN_TAGS, VERSION_TAGS
from mlflow_page import METRIC, TAG, names_in_code
from settings_page import environment_page, sections, settings_page, variables

import perpetune.runtime.events
from perpetune.cli import app
from perpetune.settings import Settings

SETTINGS = {setting.name: setting for section in sections() for setting in section.settings}


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")


def test_every_setting_of_the_shipped_file_is_in_the_reference() -> None:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    page = settings_page()
    for name in leaves(shipped):
        heading = f"#### `{name}`" if "." in name else f"## {name}\n"
        assert heading in page or name in SETTINGS, name


def test_every_setting_has_a_description_and_a_type() -> None:
    assert [name for name, setting in SETTINGS.items() if not setting.description] == []
    assert [name for name, setting in SETTINGS.items() if not setting.type] == []


def test_type_bounds_unit_and_shipped_value() -> None:
    setting = SETTINGS["train.validation_rows"]
    assert (setting.type, setting.unit) == ("whole number ≥ 1", "rows")
    assert SETTINGS["task.name"].shipped == "reviews"
    assert SETTINGS["train.epochs"].type == "number > 0 or auto"
    assert SETTINGS["promote.approval"].type == "one of none, required"
    assert SETTINGS["tune.rank"].type == "[whole number ≥ 1, whole number ≥ 1]"
    assert SETTINGS["serve.initial_model.url"].description


def test_every_environment_variable_is_described() -> None:
    found = {each.name: each.description for each in variables()}
    assert {"PERPETUNE_HOME", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PERPETUNE_API_KEY"} <= set(found)
    assert len(found) >= len(Settings.model_fields)
    assert [name for name, text in found.items() if not text] == []
    assert all(f"`{name}`" in environment_page() for name in found)


def test_every_command_and_option_is_described() -> None:
    page = commands_page()
    names = {each.name for each in commands()}
    registered = {each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands}
    assert {f"perpetune {name}" for name in registered} <= names
    assert "perpetune keys add" in names
    for command in commands():
        assert f"## {command.name}\n" in page
        assert command.description and command.example, command.name
        assert all(text for _, text in command.options), command.name
    assert "`--label-delay" in page


def test_every_event_is_described() -> None:
    constants = {value for value in vars(perpetune.runtime.events).values() if isinstance(value, str)}
    named = {value for value in constants if value.startswith("perpetune.model.")}
    assert {each.name for each in events()} == named
    assert all(each.description for each in events())
    assert all(f"`{name}`" in events_page() for name in named)


def test_every_tag_and_metric_that_the_code_writes_is_described() -> None:
    assert names_in_code(METRIC) - set(METRICS) == set()
    tags = names_in_code(TAG)
    assert {"release.state", "git.commit", "perpetune.detector"} <= tags
    prefixes = {name.partition(".")[0] for name in (*RUN_TAGS, *VERSION_TAGS)}
    written = {name for name in tags if name.partition(".")[0] in prefixes and not name.endswith(".json")}
    assert written - set(RUN_TAGS) - set(VERSION_TAGS) - NO_TAGS == set()


# Dotted names of the same form that are no tags, but metadata of a logged model.
NO_TAGS = {"base.model", "base.revision"}


def test_no_tag_or_metric_is_described_that_the_code_does_not_write() -> None:
    files = [path for path in (ROOT / "perpetune").rglob("*.py") if "testing" not in path.parts]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert [name for name in {**RUN_TAGS, **VERSION_TAGS, **METRICS} if f'"{name}"' not in source] == []


def test_every_path_and_field_of_the_api_is_in_the_reference() -> None:
    described = openapi(ROOT / "params.yaml")
    page = api_page(described)
    for path, methods in described["paths"].items():
        escaped = path.replace("{", "&#123;").replace("}", "&#125;")
        assert all(f"## {method.upper()} {escaped}" in page for method in methods), path
    for name, model in described["components"]["schemas"].items():
        assert f"### {name}\n" in page
        assert all(f"| `{field}` |" in page for field in model.get("properties", {})), name
    assert "/v1/chat/completions" in page


def test_every_metric_of_the_gateway_is_described() -> None:
    assert all(text for _, _, _, text in metrics())
    assert "`perpetune_http_requests_total`" in metrics_page()


def test_every_result_of_a_benchmark_has_a_title_and_an_n() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(ABOUT)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.023, "0.023"), (6.559, "6.559"), (10661.97, "10,662"), (6.2e-6, "6.2e-06"), (-0.0187, "-0.0187")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_every_decision_is_listed() -> None:
    page = decisions_page()
    assert all(f"({path.name})" in page for path in DOCS.glob("decisions/[0-9]*.md"))


def test_decisions_and_pages_become_links() -> None:
    assert linked("See decision 14.", "reference/settings.md") == (
        "See decision [14](../decisions/0014-holdouts-that-labels-can-fill.md)."
    )
    assert linked("See decisions 10 and 14.", "x.md").count("](decisions/00") == 2
    assert linked("docs/guides/gpus.md", "reference/settings.md") == "[GPUs and clusters](../guides/gpus.md)"


def pages() -> list[Path]:
    written = sorted(path for path in DOCS.rglob("*.md") if "decisions" not in path.parts)
    return [ROOT / "README.md", *written]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    roots = "|".join({name.partition(".")[0] for name in SETTINGS})
    named = re.findall(rf"`((?:{roots})\.[a-z_.]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if name not in SETTINGS and name not in VERSION_TAGS] == []


def test_pages_that_the_code_names_exist() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if (
            name.endswith((".py", ".sh", ".yaml", ".yml", ".toml", "Makefile", "Dockerfile"))
            and (ROOT / name).is_file()
        ):
            text = (ROOT / name).read_text(encoding="utf-8")
            for found in re.findall(r"\bdocs/[\w/-]+\.md\b", text):
                assert (ROOT / found).is_file(), f"{name} names {found}"
