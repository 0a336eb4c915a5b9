"""Running the data pipeline with DVC's command line, its stable interface."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import yaml

from perpetune.curation.running.layout import ASSIGNMENTS, SPLITS
from perpetune.curation.splitting import assignment_record
from perpetune.errors import PerpetuneError
from perpetune.files import write_atomic
from perpetune.git import is_in_repository

LOCAL_REMOTE = Path(".perpetune/dvc-remote")
_REMOTE = "perpetune"
_SECTION = f"'remote \"{_REMOTE}\"'"
# DVC reads a relative path from the folder of its config: a workspace that is moved or copied takes its remote along.
_LOCAL_URL = (Path("..") / LOCAL_REMOTE).as_posix()
_STAGE_FAILED = re.compile(r"^ERROR: failed to reproduce '([^']+)'", re.MULTILINE)


@dataclass(frozen=True)
class DataVersion:
    """The data in `dvc.lock`: `version` is the MD5 of the splits, `outputs` the MD5 of each output folder."""

    version: str
    outputs: dict[str, str]


def prepare(workspace: Path, remote: str | None) -> None:
    """Initialise DVC in the workspace, with a default remote. Idempotent.

    `remote` is any URL that DVC supports; None means the remote of `.dvc/config`, or a folder of the workspace. An
    absolute path of that folder, which may be that of the workspace before it was moved or copied, becomes relative.
    Raises PerpetuneError if there is no `dvc.yaml`.
    """
    if not (workspace / "dvc.yaml").is_file():
        raise PerpetuneError(
            "there is no dvc.yaml",
            where=str(workspace),
            do="run this in the folder that holds params.yaml and dvc.yaml",
        )
    if not (workspace / ".dvc").is_dir():
        _dvc(workspace, "init", "--quiet", *([] if (workspace / ".git").exists() else ["--no-scm"]))
    shared, local = _config(workspace / ".dvc" / "config"), _config(workspace / ".dvc" / "config.local")
    named = shared.has_option("core", "remote") or local.has_option("core", "remote")
    if remote is None and (not named or _is_own_folder(local.get(_SECTION, "url", fallback=""))):
        remote = _LOCAL_URL
    settings: dict[str, dict[str, str]] = {"core": {"check_update": "false"}}
    if remote:
        settings["core"]["remote"] = _REMOTE
        settings[_SECTION] = {"url": remote}
    if not is_in_repository(workspace):
        settings["core"]["no_scm"] = "true"
    local.read_dict(settings)
    _write(local, workspace / ".dvc" / "config.local")


def _is_own_folder(url: str) -> bool:
    """Whether a URL of the remote that `prepare` sets is that of a folder of the workspace, wherever it lay then."""
    path = Path(url)
    return url == _LOCAL_URL or (path.is_absolute() and path.parts[-2:] == LOCAL_REMOTE.parts)


def reproduce(workspace: Path) -> DataVersion:
    """Run `dvc repro`: only stages whose data or settings changed. Raises PerpetuneError with a failed stage's error.

    The record of split assignments is got first if dvc.lock names one, as in a fresh clone: the new splits add to it.
    """
    if assignment_record.is_missing(workspace):
        _dvc(workspace, "pull", "--quiet", ASSIGNMENTS.as_posix())
    _dvc(workspace, "repro")
    return data_version(workspace)


def push(workspace: Path) -> None:
    """Run `dvc push` to the default remote. Raises PerpetuneError if it cannot be reached."""
    _dvc(workspace, "push")


def data_version(workspace: Path) -> DataVersion:
    """Read the data version from `dvc.lock`. Raises PerpetuneError if no data was curated yet."""
    lock = workspace / "dvc.lock"
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.is_file() else {}).get("stages", {})
    outputs = {
        out["path"]: str(out["md5"]).removesuffix(".dir") for stage in stages.values() for out in stage.get("outs", ())
    }
    if SPLITS.as_posix() not in outputs:
        raise PerpetuneError(
            "no data has been curated yet", where=str(lock), do="run `dvc repro` or `perpetune refresh`"
        )
    return DataVersion(outputs[SPLITS.as_posix()], outputs)


def has_version(workspace: Path, version: str) -> bool:
    """Whether the splits in the workspace are those of this version."""
    return (workspace / SPLITS).is_dir() and data_version(workspace).version == version


def checkout_splits(workspace: Path, version: str, into: Path) -> Path:
    """Check out the splits of an older data version into the folder `into`; returns their path.

    They come from the workspace's DVC cache or its default remote, through a separate DVC repository, so that the
    workspace does not change. Raises PerpetuneError if neither has them.
    """
    if not (workspace / ".dvc").is_dir():
        raise PerpetuneError(
            f"the data version {version[:8]} cannot be checked out: DVC is not initialised here",
            where=str(workspace),
            do="run this in the workspace that trained on it",
        )
    (into / ".dvc").mkdir(parents=True, exist_ok=True)
    _write(_config_for_checkout(workspace / ".dvc"), into / ".dvc" / "config")
    splits = {"md5": f"{version}.dir", "hash": "md5", "path": SPLITS.name}
    (into / "splits.dvc").write_text(yaml.safe_dump({"outs": [splits]}), encoding="utf-8")
    try:
        _dvc(into, "pull", "--quiet")
    except PerpetuneError as fault:
        raise PerpetuneError(
            f"the data version {version[:8]} is neither in DVC's cache nor in its remote",
            where=str(workspace),
            do="name the remote that has it in PERPETUNE_DVC_REMOTE or .dvc/config",
        ) from fault
    return into / SPLITS.name


def _config_for_checkout(home: Path) -> ConfigParser:
    """The DVC config of a workspace for another repository: relative paths, also of the cache, become absolute."""
    config = ConfigParser(interpolation=None)
    config.read([home / "config", home / "config.local"], encoding="utf-8")
    config.read_dict({"core": {"no_scm": "true"}})
    for section, option in ((section, "url") for section in config.sections() if "remote" in section):
        url = config.get(section, option, fallback="")
        if url and "://" not in url:
            config.set(section, option, str((home / url).absolute()))
    cache = config.get("cache", "dir", fallback="cache")
    config.read_dict({"cache": {"dir": str((home / cache).absolute())}})
    return config


def _dvc(workspace: Path, *arguments: str) -> None:
    # The stages run `python`, which must be this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace,
        env={**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise _failure(arguments[0], done.stderr)


def _failure(command: str, stderr: str) -> PerpetuneError:
    """The error of the failed stage, or else DVC's error."""
    stage = _STAGE_FAILED.search(stderr)
    said = stderr[: stage.start()].strip() if stage else ""
    if stage and said:
        return PerpetuneError(said, where=f"data stage {stage[1]}")
    noise = re.sub(r"^(ERROR|WARNING): ", "", stderr.strip(), flags=re.MULTILINE)
    return PerpetuneError(noise or "it failed without an error message", where=f"dvc {command}")


def _config(path: Path) -> ConfigParser:
    config = ConfigParser(interpolation=None)
    config.read(path, encoding="utf-8")
    return config


def _write(config: ConfigParser, path: Path) -> None:
    text = StringIO()
    config.write(text)
    write_atomic(path, text.getvalue())
