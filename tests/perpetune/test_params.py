from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from perpetune.errors import PerpetuneError
from perpetune.params import load_params

ROOT = Path(__file__).parents[2]


def test_the_repositorys_own_settings_are_valid() -> None:
    assert load_params(ROOT / "params.yaml").task.name == "reviews"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  seed: 7\n  frozen", "  sed: 7\n  frozen", "split.sed: there is no such setting"),
        ("learning_rate: auto", "learning_rate: fast", "train.learning_rate: Input should be a valid number"),
        ("epochs: auto", "epochs: -1", "train.epochs: Input should be greater than 0"),
        ("  rank", "  rank: [", "not valid YAML"),
    ],
)
def test_a_fault_names_file_line_and_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (ROOT / "params.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1) if old in text else text.replace("lora: {rank", "lora: {[rank", 1))

    with pytest.raises(PerpetuneError) as caught:
        load_params(path)

    assert said in str(caught.value)
    assert f"{path}:" in str(caught.value)


SCHEMA = """
  output_schema:
    type: object
    properties:
      name: {type: string}
      age: {type: integer}
"""


def with_schema(folder: Path, schema: str, kind: str = "generation") -> Path:
    text = (ROOT / "params.yaml").read_text().replace("kind: classification", f"kind: {kind}")
    path = folder / "params.yaml"
    path.write_text(re.sub(r"\n  output_schema: null.*\n", lambda _: schema, text))
    return path


def test_a_schema_stands_in_params_yaml_or_in_a_file_beside_it(tmp_path: Path) -> None:
    here = load_params(with_schema(tmp_path, SCHEMA)).task.output_schema
    assert here == {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "person.json").write_text(json.dumps(here))
    there = load_params(with_schema(tmp_path, "\n  output_schema: forms/person.json\n")).task.output_schema
    assert there == here


@pytest.mark.parametrize(
    ("schema", "kind", "said"),
    [
        (
            SCHEMA.replace("integer", "colour"),
            "generation",
            "{folder}/params.yaml:12: task.output_schema.properties.age",
        ),
        (SCHEMA, "classification", "task.output_schema is for task.kind generation"),
        ("\n  output_schema: nowhere.json\n", "generation", "{folder}/nowhere.json: task.output_schema cannot be read"),
        ("\n  output_schema: broken.json\n", "generation", "{folder}/broken.json: task.output_schema is not JSON"),
        (
            "\n  output_schema: list.json\n",
            "generation",
            "{folder}/list.json: task.output_schema must be a JSON object",
        ),
        ("\n  output_schema: bad.json\n", "generation", "{folder}/bad.json: task.output_schema.type: 'colour'"),
        ("\n  output_schema: 3\n", "generation", "{folder}/params.yaml:8: task.output_schema: Input should be a valid"),
        ("\n  output_schema: {not: {type: string}}\n", "generation", "answers cannot be constrained to it"),
    ],
)
def test_a_fault_in_a_schema_names_its_place(tmp_path: Path, schema: str, kind: str, said: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bad.json").write_text('{"type": "colour"}')
    with pytest.raises(PerpetuneError) as caught:
        load_params(with_schema(tmp_path, schema, kind))
    assert said.format(folder=tmp_path) in str(caught.value)


@pytest.mark.parametrize("preset", sorted(path.name for path in (ROOT / "presets").iterdir()))
def test_presets_fit_into_params_yaml(preset: str, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text()) | yaml.safe_load(
        (ROOT / "presets" / preset).read_text()
    )
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_params(path).base.model.startswith("hf:")


def test_a_repeated_key_is_named_with_both_lines(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("  batch_size: auto\n", "  batch_size: auto\n  batch_size: 16\n")
    path = tmp_path / "params.yaml"
    path.write_text(text)
    first = text.splitlines().index("  batch_size: auto") + 1
    with pytest.raises(PerpetuneError, match=f"params.yaml:{first + 1}: batch_size: .* here and on line {first}"):
        load_params(path)
