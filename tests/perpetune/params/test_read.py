from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from perpetune.errors import PerpetuneError
from perpetune.params import Params, as_yaml, load_params

ROOT = Path(__file__).parents[3]
PRESETS = ROOT / "examples" / "presets"
TASK = """\
schema: 2
task:
  name: tickets
  kind: classification
  instruction: Which team?
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_the_repositorys_own_settings_are_valid() -> None:
    assert load_params(ROOT / "params.yaml").task.name == "reviews"


def test_a_file_that_names_only_the_task_has_all_settings(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, TASK))
    assert params.fetch.sources == ("inbox", "traffic")
    assert params.train.lora.rank == 8
    assert params.evaluate.encoder is not None


def test_what_the_repositorys_file_says_is_the_default_but_for_its_task() -> None:
    """It says them because a person is likely to change them."""
    ours = load_params(ROOT / "params.yaml")
    least = Params(task=ours.task, fetch=ours.fetch)
    assert ours == least
    assert ours.model_dump_json() == least.model_dump_json(), "1 and 1.0 would be two values to MLflow and DVC"


def test_a_section_keeps_the_defaults_of_what_it_does_not_say(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, TASK + "train: {lora: {rank: 4}}\n"))
    assert (params.train.lora.rank, params.train.lora.alpha, params.train.validations) == (4, 16, 4)


def test_every_setting_written_out_reads_back_the_same(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    assert load_params(write(tmp_path, as_yaml(params))) == params


@pytest.mark.parametrize("missing", ["name", "kind", "instruction"])
def test_what_only_a_team_can_say_has_no_default(missing: str, tmp_path: Path) -> None:
    text = "".join(line for line in TASK.splitlines(keepends=True) if not line.startswith(f"  {missing}:"))
    with pytest.raises(PerpetuneError, match=f"params.yaml:2: task.{missing}: this field is missing"):
        load_params(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("split:\n  sed: 7\n", "7: split.sed: there is no such setting"),
        ("train:\n  learning_rate: fast\n", "7: train.learning_rate: Input should be a valid number"),
        ("train:\n  epochs: -1\n", "7: train.epochs: Input should be greater than 0"),
        ("train:\n  lora: {[rank: 8}\n", "7: not valid YAML"),
    ],
)
def test_a_fault_names_file_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PerpetuneError) as caught:
        load_params(write(tmp_path, TASK + text))
    assert f"{tmp_path / 'params.yaml'}:{said}" in str(caught.value)


SCHEMA = """\
  output_schema:
    type: object
    properties:
      name: {type: string}
      age: {type: integer}
"""


def with_schema(folder: Path, schema: str, kind: str = "generation") -> Path:
    return write(folder, TASK.replace("kind: classification", f"kind: {kind}") + schema)


def test_a_schema_stands_in_params_yaml_or_in_a_file_beside_it(tmp_path: Path) -> None:
    here = load_params(with_schema(tmp_path, SCHEMA)).task.output_schema
    assert here == {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "person.json").write_text(json.dumps(here))
    there = load_params(with_schema(tmp_path, "  output_schema: forms/person.json\n")).task.output_schema
    assert there == here


@pytest.mark.parametrize(
    ("schema", "kind", "said"),
    [
        (
            SCHEMA.replace("integer", "colour"),
            "generation",
            "{folder}/params.yaml:10: task.output_schema.properties.age",
        ),
        (SCHEMA, "classification", "task.output_schema is for task.kind generation"),
        ("  output_schema: nowhere.json\n", "generation", "{folder}/nowhere.json: task.output_schema cannot be read"),
        ("  output_schema: broken.json\n", "generation", "{folder}/broken.json: task.output_schema is not JSON"),
        (
            "  output_schema: list.json\n",
            "generation",
            "{folder}/list.json: task.output_schema must be a JSON object",
        ),
        ("  output_schema: bad.json\n", "generation", "{folder}/bad.json: task.output_schema.type: 'colour'"),
        ("  output_schema: 3\n", "generation", "{folder}/params.yaml:6: task.output_schema: Input should be a valid"),
        ("  output_schema: {not: {type: string}}\n", "generation", "answers cannot be constrained to it"),
    ],
)
def test_a_fault_in_a_schema_names_its_place(tmp_path: Path, schema: str, kind: str, said: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bad.json").write_text('{"type": "colour"}')
    with pytest.raises(PerpetuneError) as caught:
        load_params(with_schema(tmp_path, schema, kind))
    assert said.format(folder=tmp_path) in str(caught.value)


@pytest.mark.parametrize("preset", sorted(path.name for path in PRESETS.iterdir()))
def test_presets_fit_into_params_yaml(preset: str, tmp_path: Path) -> None:
    values = yaml.safe_load(TASK) | yaml.safe_load((PRESETS / preset).read_text())
    assert load_params(write(tmp_path, yaml.safe_dump(values))).base.model.startswith("hf:")


def test_a_repeated_key_is_named_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path, TASK + "train:\n  batch_size: auto\n  batch_size: 16\n")
    with pytest.raises(PerpetuneError, match=r"params.yaml:8: batch_size: .* here and on line 7"):
        load_params(path)


def test_old_names_are_one_error_with_every_line_and_new_name(tmp_path: Path) -> None:
    path = write(
        tmp_path, TASK.removeprefix("schema: 2\n") + "train: {warmup_share: 0.1}\nrelease:\n  share: 0.2\nlost: 3\n"
    )
    with pytest.raises(PerpetuneError) as caught:
        load_params(path)
    assert str(caught.value).splitlines() == [
        f"{path}:5: train.warmup_share is now called train.warmup_ratio",
        f"{path}:7: release.share is now called release.traffic_ratio",
        "  `perpetune params upgrade` writes the new names into the file and keeps a copy of the old one",
    ]


def test_a_file_without_schema_and_old_names_is_valid(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, TASK.removeprefix("schema: 2\n"))).task.name == "tickets"


@pytest.mark.parametrize(
    ("schema", "said"),
    [("3", "schema 3 is newer than this perpetune"), ("two", "'two' is no version"), ("0", "0 is no")],
)
def test_a_schema_that_is_not_known_is_refused(schema: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match=rf"params.yaml:1: .*{said}"):
        load_params(write(tmp_path, TASK.replace("schema: 2", f"schema: {schema}")))


@pytest.mark.parametrize("method", ["dora", "full"])
def test_what_vllm_cannot_serve_is_refused_before_it_is_trained(method: str, tmp_path: Path) -> None:
    path = write(tmp_path, TASK + f"train: {{method: {method}}}\nserve: {{engine: vllm}}\n")
    with pytest.raises(PerpetuneError, match=f"train.method: {method} cannot be served by vLLM.*qlora"):
        load_params(path)
    assert load_params(write(tmp_path, TASK + f"train: {{method: {method}}}\n")).train.method == method
    assert load_params(write(tmp_path, TASK + "train: {method: qlora}\nserve: {engine: vllm}\n")).serve.engine == "vllm"


def test_variables_of_the_chat_template(tmp_path: Path) -> None:
    path = write(tmp_path, TASK + "base: {model: 'path:x', chat_template_kwargs: {enable_thinking: false}}\n")
    params = load_params(path)
    assert params.base.chat_template_kwargs == {"enable_thinking": False}
    assert load_params(write(tmp_path, as_yaml(params))) == params
    for name in ("messages", "not a name"):
        path = write(tmp_path, TASK + f"base: {{model: 'path:x', chat_template_kwargs: {{{name}: 1}}}}\n")
        with pytest.raises(PerpetuneError, match=f"{name} is no variable of a chat template"):
            load_params(path)


LABELLED = TASK.replace("generation", "classification") + "  labels: [fraud, legitimate]\n"


def test_costs_of_any_wrong_answer_and_of_named_ones(tmp_path: Path) -> None:
    text = LABELLED + "promote:\n  costs: {fraud: 50, legitimate: {fraud: 2}}\n  recall_floors: {Fraud: 0.9}\n"
    params = load_params(write(tmp_path, text))
    assert params.promote.costs == {"fraud": {"*": 50}, "legitimate": {"fraud": 2}}
    assert load_params(write(tmp_path, as_yaml(params))) == params


@pytest.mark.parametrize(
    ("promote", "said"),
    [
        ("costs:\n    froud: 50\n", "9: promote.costs.froud: 'froud' is none of task.labels"),
        ("costs:\n    fraud: {legit: 50}\n", "9: promote.costs.fraud.legit: 'legit' is none of task.labels"),
        ("costs:\n    fraud: -50\n", "promote.costs.fraud.*: Input should be greater than or equal to 0, got -50"),
        (
            "costs:\n    fraud:\n      legitimate: .inf\n",
            "10: promote.costs.fraud.legitimate: Input should be a finite",
        ),
        (
            "costs:\n    fraud:\n      fraud: 1\n",
            "10: promote.costs.fraud.fraud: the right answer costs nothing, got 1",
        ),
        ("costs: 50\n", "8: promote.costs: Input should be a valid dictionary, got 50"),
        ("costs: {fraud: many}\n", "8: promote.costs.fraud: Input should be a valid dictionary, got 'many'"),
        ("recall_floors: {froud: 0.9}\n", "8: promote.recall_floors.froud: 'froud' is none of task.labels"),
        ("recall_floors: {fraud: 90}\n", "8: promote.recall_floors.fraud: Input should be less than or equal to 1"),
        ("metric: balanced_accuracy\n  costs: {fraud: 5}\n", "8: promote.metric: balanced_accuracy and promote.costs"),
    ],
)
def test_faults_of_costs_name_their_line(promote: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError) as fault:
        load_params(write(tmp_path, f"{LABELLED}promote:\n  {promote}"))
    assert said in str(fault.value), str(fault.value)


def test_free_text_has_no_costs(tmp_path: Path) -> None:
    text = TASK.replace("classification", "generation") + "promote: {costs: {fraud: 50}}\n"
    with pytest.raises(PerpetuneError, match=r"promote.costs: costs are of labels, and task.kind generation has none"):
        load_params(write(tmp_path, text))


def test_a_file_that_has_settings_which_nothing_uses_any_more_is_valid(tmp_path: Path) -> None:
    text = f"{TASK}watch: {{margin: 0.04, drift_ratio: 0.3, reference_confidence: 0.95}}\n"
    params = load_params(write(tmp_path, text))
    assert params.watch.margin == 0.04
    assert "drift_ratio" not in as_yaml(params) and "reference_confidence" not in as_yaml(params)
