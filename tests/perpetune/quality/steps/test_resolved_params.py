"""Stages that compare texts depend on the encoder's weights as they are on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from workspaces import write_params

from perpetune.curation.running.layout import RESOLVED
from perpetune.quality.steps import resolved_params
from perpetune.workspace import open_workspace


def weights_of(root: Path, **sections: dict[str, object]) -> str | None:
    write_params(root, evaluate={"encoder": {"model": f"path:{root / 'encoder'}"}}, **sections)
    resolved_params.run(open_workspace(root))
    found: str | None = yaml.safe_load((root / RESOLVED).read_text())["encoder_weights"]
    return found


def test_the_digest_is_that_of_the_weights_and_null_without_them(tmp_path: Path) -> None:
    assert weights_of(tmp_path) is None
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    assert weights_of(tmp_path) is None, "the weights are still missing"
    (tmp_path / "encoder/model.safetensors").write_bytes(b"one")
    one = weights_of(tmp_path)
    assert one is not None and weights_of(tmp_path) == one
    (tmp_path / "encoder/model.safetensors").write_bytes(b"other")
    assert weights_of(tmp_path) not in (None, one)


def test_an_encoder_that_no_stage_needs_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text("{}")
    (tmp_path / "encoder/model.safetensors").write_bytes(b"one")
    assert weights_of(tmp_path, label_errors={"action": "off"}) is None


@pytest.mark.parametrize("model", ["pypi:no-such-encoder", "hf:nobody/no-such-encoder"])
def test_nothing_is_fetched(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write_params(tmp_path, evaluate={"encoder": {"model": model, "revision": "1"}})
    resolved_params.run(open_workspace(tmp_path))
    assert yaml.safe_load((tmp_path / RESOLVED).read_text())["encoder_weights"] is None
