from __future__ import annotations

from pathlib import Path

import pytest

import perpetune
from perpetune.settings import Settings, checkout


def test_assets_are_the_folders_own_else_those_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERPETUNE_ASSETS", raising=False)
    ours = Path(perpetune.__file__).parents[1] / "assets"
    assert Settings().assets == ours
    (tmp_path / "assets").mkdir()
    assert Settings().assets == Path("assets")
    monkeypatch.setenv("PERPETUNE_ASSETS", "/models")
    assert Settings().assets == Path("/models")


def test_an_installed_wheel_keeps_assets_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages" / "perpetune" / "settings.py"
    monkeypatch.setattr("perpetune.settings.__file__", str(installed))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERPETUNE_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert checkout() is None
    assert Settings().assets == tmp_path / "cache" / "perpetune" / "assets"
