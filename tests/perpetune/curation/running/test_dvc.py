"""The pipeline as DVC runs it, in a workspace of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from perpetune.curation.running import dvc
from perpetune.curation.steps.data_card import data_version
from perpetune.errors import PerpetuneError
from perpetune.params import load_params
from perpetune.records import Example, read_jsonl

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


ROWS = [f"k{n},my parcel {n} is late,{'yes' if n % 2 else 'no'}" for n in range(80)]
# For what concerns DVC's cache and remotes, whatever the stages do.
ONE_STAGE = {
    "cmd": "mkdir -p data/splits && cp mine.csv data/splits/train.jsonl",
    "deps": ["mine.csv"],
    "outs": ["data/splits"],
}


def lay_out(folder: Path) -> Path:
    """Settings that name their sources, and leave all else to the defaults but the steps that take longest."""
    shutil.copy(ROOT / "dvc.yaml", folder)
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    params = {
        "task": shipped["task"],
        "fetch": {"sources": ["mine.csv", "inbox", "traffic"]},
        "label_errors": {"action": "off"},
        "private": {"mode": "off"},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    write_rows(folder, ROWS)
    return folder


def write_rows(folder: Path, rows: list[str]) -> None:
    (folder / "mine.csv").write_text("\n".join(["id,input,output", *rows]))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that has been curated once. No test changes it."""
    folder = lay_out(tmp_path_factory.mktemp("finished"))
    dvc.prepare(folder, None)
    dvc.reproduce(folder)
    return folder


@pytest.fixture
def curated(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "curated", symlinks=True)


def without_card(workspace: Path) -> Path:
    """For what concerns the splits: no stage needs the card, which takes longest."""
    pipeline = yaml.safe_load((workspace / "dvc.yaml").read_text())
    del pipeline["stages"]["card"]
    (workspace / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return workspace


def frozen(workspace: Path) -> list[Example]:
    return read_jsonl(workspace / "data/splits/frozen.jsonl", Example)


def test_before_any_curation_there_is_no_version(workspace: Path) -> None:
    with pytest.raises(PerpetuneError, match="no data has been curated yet"):
        dvc.data_version(workspace)


def test_the_pipeline_follows_its_data(curated: Path) -> None:
    workspace = curated
    first = dvc.data_version(workspace)
    assert first.version == data_version(workspace / "data/splits"), "the card names DVC's own version"
    assert first.version in (workspace / "data/card/card.html").read_text()

    dvc.push(workspace)
    remote = workspace / ".perpetune/dvc-remote"
    assert (remote / f"files/md5/{first.version[:2]}/{first.version[2:]}.dir").is_file()

    split_at = (workspace / "data/splits/train.jsonl").stat().st_mtime_ns
    members = frozen(workspace)
    traffic = workspace / "data/traffic/labelled.jsonl"
    traffic.parent.mkdir()
    traffic.write_text("".join(f'{{"input": "new {n}", "output": "yes"}}\n' for n in range(30)))
    second = dvc.reproduce(workspace)
    assert second.version != first.version
    assert (workspace / "data/splits/train.jsonl").stat().st_mtime_ns > split_at
    assert [row for row in frozen(workspace) if row.source != "traffic"] == members
    members = frozen(workspace)
    assert 0 < sum(row.source == "traffic" for row in members) < 10, "some of the traffic joins it by lot"
    assert len(read_jsonl(workspace / "data/splits/recent.jsonl", Example)) == 9

    split_at = (workspace / "data/splits/train.jsonl").stat().st_mtime_ns
    assert dvc.reproduce(workspace) == second
    assert (workspace / "data/splits/train.jsonl").stat().st_mtime_ns == split_at, "unchanged data is not split again"

    write_rows(workspace, ["1,a,yes", "2,b,no", "3,c,yes"])
    traffic.unlink()
    with pytest.raises(PerpetuneError, match=r"data stage split: \d training rows are fewer") as caught:
        dvc.reproduce(workspace)
    assert "ERROR" not in str(caught.value)
    assert "perpetune ingest" in str(caught.value)
    assert frozen(workspace) == members, "a stage that fails leaves the last good splits"
    assert dvc.data_version(workspace).version == second.version


def test_a_remote_of_ones_own_is_set_once(workspace: Path) -> None:
    dvc.prepare(workspace, None)
    dvc.prepare(workspace, "s3://bucket/data")
    settings = (workspace / ".dvc/config.local").read_text()
    dvc.prepare(workspace, "s3://bucket/data")

    assert "url = s3://bucket/data" in settings
    assert (workspace / ".dvc/config.local").read_text() == settings


@pytest.mark.parametrize(
    ("how", "written"),
    [(shutil.copytree, "now"), (shutil.copytree, "by an earlier release"), (shutil.move, "by an earlier release")],
)
def test_a_workspace_that_was_moved_or_copied_keeps_its_data_with_itself(
    workspace: Path, how: Callable[[Path, Path], object], written: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (workspace / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"only": ONE_STAGE}}))
    dvc.prepare(workspace, None)
    config, remote = workspace / ".dvc/config.local", workspace / ".perpetune/dvc-remote"
    if written != "now":
        config.write_text(config.read_text().replace("../.perpetune/dvc-remote", str(remote)))
        assert str(remote) in config.read_text()
    first = dvc.reproduce(workspace)
    dvc.push(workspace)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    there = elsewhere / "workspace"
    how(workspace, there)
    before = held(remote)
    dvc.prepare(there, None)
    with (there / "mine.csv").open("a") as rows:
        rows.write("\nm,one more,yes")
    second = dvc.reproduce(there)
    dvc.push(there)
    assert second.version != first.version
    assert held(remote) == before, "nothing goes to the old place"
    assert {f"{each.version[2:]}.dir" for each in (first, second)} <= held(there / ".perpetune/dvc-remote")
    assert dvc.checkout_splits(there, first.version, elsewhere / "old").is_dir()


def held(remote: Path) -> set[str]:
    return {path.name for path in remote.rglob("*") if path.is_file()}


def test_a_remote_of_ones_own_is_not_made_relative(workspace: Path) -> None:
    for own in ("/mnt/shared/dvc-remote", "s3://bucket/.perpetune/dvc-remote", "../../remote"):
        dvc.prepare(workspace, own)
        dvc.prepare(workspace, None)
        assert f"url = {own}\n" in (workspace / ".dvc/config.local").read_text()


def test_a_folder_without_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match=r"no dvc\.yaml"):
        dvc.prepare(tmp_path, None)


def test_stages_follow_the_value_that_holds_be_it_a_default(curated: Path) -> None:
    """As a new perpetune whose default has changed: params.yaml says nothing of it."""
    short = yaml.safe_load((curated / "params.yaml").read_text())
    full = load_params(curated / "params.yaml").model_dump(mode="json")
    first = dvc.data_version(curated)
    ran = (curated / "data/splits/train.jsonl").stat().st_mtime_ns
    (curated / "params.yaml").write_text(yaml.safe_dump(full))
    assert dvc.reproduce(curated) == first
    assert (curated / "data/splits/train.jsonl").stat().st_mtime_ns == ran, "written out, the default is the same"
    (without_card(curated) / "params.yaml").write_text(yaml.safe_dump({**short, "split": {"seed": 20}}))
    assert dvc.reproduce(curated).version != first.version


def test_a_fresh_clone_keeps_the_frozen_holdout(curated: Path) -> None:
    """The record comes from DVC's cache or remote, and edited rows keep their split by it."""
    members = {row.id for row in frozen(curated)}
    assert members

    shutil.rmtree(without_card(curated) / "data")
    edited = [row.replace("is late,", "is very late again.,") for row in ROWS]
    added = [f"n{n},another lamp {n} broke,no" for n in range(40)]
    write_rows(curated, [*added, *reversed(edited)])
    dvc.reproduce(curated)
    kept = {row.id for row in frozen(curated)}
    assert {id_ for id_ in kept if id_.startswith("k")} == members
    assert any(id_.startswith("n") for id_ in kept)


def test_a_workspace_whose_dvc_yaml_is_older_keeps_its_splits(curated: Path) -> None:
    """It has splits and no record, and its pipeline does not name one."""
    forget_the_record(without_card(curated) / "dvc.yaml")
    forget_the_record(curated / "dvc.lock")
    (curated / "data/assignments.csv").unlink()
    before = dvc.data_version(curated)
    members = set(frozen(curated))

    write_rows(curated, [*ROWS, *(f"n{n},new {n},{'yes' if n % 2 else 'no'}" for n in range(40))])
    assert dvc.reproduce(curated) != before
    assert members < set(frozen(curated))
    assert (curated / "data/assignments.csv").is_file()


def forget_the_record(path: Path) -> None:
    """From dvc.yaml or dvc.lock, whose last output of this stage it is."""
    found = yaml.safe_load(path.read_text())
    assert "assignments.csv" in str(found["stages"]["split"]["outs"].pop(0 if path.suffix == ".lock" else -1))
    path.write_text(yaml.safe_dump(found))


def test_stages_that_compare_texts_run_again_when_the_encoder_arrives(curated: Path, tmp_path: Path) -> None:
    """The first run is without it, and nothing else than the encoder's weights changes before the second."""
    weights = tmp_path / "encoder"
    params = yaml.safe_load((curated / "params.yaml").read_text())
    params["select"] = {"budget": 1000}  # more rows than there are: texts may be compared, and none needs it
    params["evaluate"] = {"encoder": {"model": f"path:{weights}"}}
    (curated / "params.yaml").write_text(yaml.safe_dump(params))

    def ran() -> dict[str, int]:
        """When each stage wrote its seconds, which DVC does not track."""
        dvc.reproduce(curated)
        return {file.stem: file.stat().st_mtime_ns for file in (curated / "data/seconds").iterdir()}

    first = ran()
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"not a model yet")
    arrived = ran()
    learned = {"label_errors", "semantic", "select"}
    assert learned <= {name for name in first if arrived[name] > first[name]} <= {"params", "fetch", "card", *learned}
    again = ran()
    assert {name for name in first if again[name] > arrived[name]} == {"params", "fetch"}


FIRST_STAGES = ("params", "fetch", "validate", "clean", "split", "reference", "card")


def test_a_workspace_without_the_newer_steps_curates_and_keeps_its_splits_when_it_gets_them(workspace: Path) -> None:
    """Its dvc.yaml is of the first release; with the new one, repaired and redacted rows stay in the frozen holdout."""
    current = (workspace / "dvc.yaml").read_text()
    stages = {name: yaml.safe_load(current)["stages"][name] for name in FIRST_STAGES}
    for stage in stages.values():
        stage["outs"] = [out for out in stage["outs"] if not any("data/steps" in path for path in out)]
    stages["clean"]["deps"] = ["data/raw/output_schema.json", "data/valid"]
    stages["split"]["deps"] = ["data/clean"]
    stages["split"]["outs"] = [{"data/splits": {"persist": True}}, *stages["split"]["outs"][1:]]
    stages["card"]["deps"] = ["data/raw", "data/valid", "data/clean", "data/splits", "data/leakage"]
    (workspace / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    texts = [f"cafÃ© {n}: mail a{n}@x{n}.org about {chr(97 + n % 26)}{n}" for n in range(80)]
    rows = [f"{text},{'yes' if n % 2 else 'no'}" for n, text in enumerate(texts)]
    (workspace / "mine.csv").write_text("\n".join(["input,output", *rows]))
    dvc.prepare(workspace, None)
    dvc.reproduce(workspace)
    members = {row.id for row in frozen(workspace)}
    assert all("cafÃ©" in row.input for row in frozen(workspace))

    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["private"] = {"mode": "replace", "names": "off"}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    (workspace / "dvc.yaml").write_text(current)
    dvc.reproduce(workspace)
    assert {row.id for row in frozen(workspace)} == members
    assert all("café" in row.input and "<EMAIL_ADDRESS_1>" in row.input for row in frozen(workspace))
    card = (workspace / "data/card/card.md").read_text()
    assert "| repair | 80 | 80 | 80 | 0 | 0 |" in card
    assert "| private | 80 | 80 | 80 | 0 | 0 |" in card
    assert "@x" not in card + (workspace / "data/card/card.html").read_text()
    ran = (workspace / "data/card/card.md").stat().st_mtime_ns
    dvc.reproduce(workspace)
    assert (workspace / "data/card/card.md").stat().st_mtime_ns == ran
