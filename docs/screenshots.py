"""Take the screenshots of the site from a workspace in which `perpetune up` runs, such as that of the demo.

    make demo && (cd demo && perpetune up)
    python docs/screenshots.py --workspace demo     # in a second terminal

Needs chromium (or Google Chrome) on the PATH. Writes docs/images/*.png.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import mlflow
from mlflow.tracking import MlflowClient
from PIL import Image

from perpetune.explain.gather import gather
from perpetune.explain.page import write_page
from perpetune.loop.run_context import REPORT
from perpetune.runtime.addresses import saved_addresses
from perpetune.settings import Settings
from perpetune.tracking import registry
from perpetune.tracking.runs import find_run, runs_url
from perpetune.workspace import Workspace, open_workspace

IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 20  # of the page's own clock, in which it loads its data
LARGEST = 300_000  # bytes
ASSISTANT = 476  # pixels of a panel that MLflow opens beside a page of the default width


@dataclass(frozen=True)
class Shot:
    """A page and the part of it that is shown, in pixels; `beside` are cut off at its right."""

    name: str
    url: str
    height: int
    width: int = 1360
    beside: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, help="the folder in which the services run")
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    workspace = running_workspace(arguments.workspace)
    with TemporaryDirectory() as folder:
        for shot in shots(workspace, Path(folder)):
            take(shot, out / f"{shot.name}.png")


def running_workspace(folder: Path) -> Workspace:
    """The workspace, with the addresses of the services that run in it, or that the environment names."""
    os.chdir(folder)
    if saved := saved_addresses(Settings().home):
        os.environ |= saved.variables
    workspace = open_workspace()
    if workspace.settings.mlflow_tracking_uri is None or workspace.settings.prefect_api_url is None:
        raise SystemExit(f"nothing runs in {folder}: start `perpetune up` there first")
    return workspace


def shots(workspace: Workspace, folder: Path) -> Iterator[Shot]:
    """The pages of the champion's refresh; those that are files are written into the folder."""
    mlflow.set_tracking_uri(str(workspace.settings.mlflow_tracking_uri))
    task = workspace.params.task.name
    champion = registry.find(task, "champion")
    if champion is None:
        raise SystemExit(f"{task} has no champion yet: `perpetune refresh` makes one")
    run = find_run(champion.run_id)
    yield Shot("mlflow-runs", runs_url(task), 620, beside=ASSISTANT)
    yield Shot("mlflow-run", run.url, 900, beside=ASSISTANT)
    yield Shot("mlflow-model", registry.model_url(task), 860, beside=ASSISTANT)
    prefect = str(workspace.settings.prefect_api_url)
    flow_run = MlflowClient().get_run(champion.run_id).data.tags["prefect.flow_run_id"]
    httpx.get(f"{prefect}/flow_runs/{flow_run}").raise_for_status()
    yield Shot("prefect-refresh", f"{prefect.removesuffix('/api')}/runs/flow-run/{flow_run}", 900)
    evaluation = Path(MlflowClient().download_artifacts(champion.run_id, REPORT, str(folder)))
    yield Shot("evaluation", evaluation.as_uri(), 1000, 1100)
    page = folder / "explain.html"
    write_page(page, gather(workspace, champion.version))
    yield Shot("explain", page.as_uri(), 1000, 1100)


def take(shot: Shot, path: Path) -> None:
    """Raises SystemExit if there is no browser, or the picture would be too large to commit."""
    with TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser(),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={shot.width + shot.beside},{shot.height}",
                f"--virtual-time-budget={1000 * SECONDS}",
                f"--screenshot={path}",
                shot.url,
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
    with Image.open(path) as picture:
        picture.crop((0, 0, shot.width, shot.height)).convert("RGB").save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if size > LARGEST:
        raise SystemExit(f"{path} is larger than {LARGEST / 1000:.0f} kB")


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"no browser on the PATH: install one of {', '.join(BROWSERS)}")
    return found


if __name__ == "__main__":
    main()
