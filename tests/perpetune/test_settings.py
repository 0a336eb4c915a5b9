from __future__ import annotations

from pathlib import Path

import pytest

import perpetune
from perpetune.settings import Settings


def test_assets_are_the_folders_own_else_those_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERPETUNE_ASSETS", raising=False)
    checkout = Path(perpetune.__file__).parents[1] / "assets"
    assert checkout.is_dir(), "as `make setup` leaves it"
    assert Settings().assets == checkout
    (tmp_path / "assets").mkdir()
    assert Settings().assets == Path("assets")
    monkeypatch.setenv("PERPETUNE_ASSETS", "/models")
    assert Settings().assets == Path("/models")
