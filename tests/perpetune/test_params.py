from __future__ import annotations

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


@pytest.mark.parametrize("preset", sorted(path.name for path in (ROOT / "presets").iterdir()))
def test_presets_fit_into_params_yaml(preset: str, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text()) | yaml.safe_load(
        (ROOT / "presets" / preset).read_text()
    )
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_params(path).base.model.startswith("hf:")


def test_every_field_is_described() -> None:
    described = (ROOT / "docs" / "params.md").read_text()
    params = load_params(ROOT / "params.yaml").model_dump()
    assert [name for section in params.values() for name in section if f"{name}`" not in described] == []


def test_a_repeated_key_is_named_with_both_lines(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("  batch_size: auto\n", "  batch_size: auto\n  batch_size: 16\n")
    path = tmp_path / "params.yaml"
    path.write_text(text)
    first = text.splitlines().index("  batch_size: auto") + 1
    with pytest.raises(PerpetuneError, match=f"params.yaml:{first + 1}: batch_size: .* here and on line {first}"):
        load_params(path)
