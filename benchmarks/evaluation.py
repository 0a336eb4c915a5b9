"""Label scoring in three ways: perpetune, each label separately, and the labels of an input as one batch.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --labels 27 --rows 40 --peer-rows 4           # synthetic labels; also 150
    python benchmarks/evaluation.py --data intents.csv --peer-rows 2     # columns input, output (or text, category)

The peers use plain transformers: "each label alone" is a forward pass for every label of every input; "labels batched"
pads the labels of an input into one batch. All compute log p(label | input) of the same tokens, with the end-of-turn token.
Speed is measured alternately in the machine's best precision, equality of the scores in fp32 on the same inputs. With
`--peer-rows` the slow peers answer the first rows only, and seconds per row are compared.

With few labels all are scored, so the scores equal those of the peers. With many, labels that together have less than a
hundredth of the probability are skipped, so that much difference is allowed. It also measures the cost of an adapter per
request, and batched against sequential generation of free text.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.record import Claim, write

if TYPE_CHECKING:
    import torch

    from perpetune.inference.predictor import Predictor
    from perpetune.records import Message

GOAL = 4.0
LOG_TOLERANCE = 1e-4
QUICK_ROWS = 12
ADAPTER_GOAL = 1.05  # times the seconds of the base without an adapter
TEXT_TOKENS = 24
SYSTEMS = ("perpetune", "labels batched", "each label alone")


@dataclass(frozen=True)
class Work:
    """The prompts, the labels, and the tokens for the peers: (rows, labels)."""

    asked: list[tuple[Message, ...]]
    labels: list[str]


@dataclass(frozen=True)
class Turn:
    """One measurement of a system: seconds for so many rows, and its answers."""

    system: str
    round: int
    rows: int
    seconds: float
    answers: list[str]

    @property
    def row_seconds(self) -> float:
        return self.seconds / self.rows


@dataclass(frozen=True)
class Equality:
    """The largest differences from "each label alone" in fp32; in log-probability only for labels of at least 1e-3.

    With `many` labels not all are scored, so a difference is allowed.
    """

    rows: int
    many: bool
    log_probability: float
    probability: float
    answers: int


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    work = _work_of(asked)
    peer_rows = min(asked.peer_rows or len(work.asked), len(work.asked))
    import torch

    torch.set_num_threads(asked.threads)
    turns = take_turns(_answerer(asked, "auto"), work, peer_rows, asked.rounds)
    equality = compare(_answerer(asked, "fp32"), work, min(asked.exact_rows, peer_rows))
    predictor = _answerer(asked, "auto")
    texts = text_at_once(predictor, work, asked.rounds)
    adapters = [] if asked.adapter else adapter_against_base(predictor, work, asked.rounds)
    claims = [*claims_of(turns, equality), *_ratio_claims(texts, adapters)]
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.3g} "
            f"({claim.interval[0]:.3g} to {claim.interval[1]:.3g}), goal {claim.goal:g}"
        )
    name = f"evaluation-{_source(asked)}"
    details = {
        "labels": len(work.labels),
        "adapter": asked.adapter is not None,
        "text_at_once": texts,
        "adapter_against_base": adapters,
        "threads": asked.threads,
        "turns": [{key: value for key, value in asdict(turn).items() if key != "answers"} for turn in turns],
        "equality": asdict(equality),
    }
    if not asked.quick:
        print(write(name, claims, details, time.monotonic() - began))
        draw(turns, name)
    return 0 if all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CSV or JSONL; its labels are listed in the instruction")
    parser.add_argument("--labels", type=int, help="number of synthetic labels for the reviews")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--adapter", type=Path, help="a fine-tuned adapter for all systems; without it, the base")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--peer-rows", type=int, help="rows for the peers; default: all")
    parser.add_argument("--exact-rows", type=int, default=40, help="rows on which scores are compared in fp32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few rows, one round, no output files")
    asked = parser.parse_args()
    if asked.quick:
        asked.rows, asked.exact_rows, asked.rounds = min(asked.rows, QUICK_ROWS), 4, 1
    return asked


def _answerer(asked: argparse.Namespace, precision: str) -> Predictor:
    from perpetune.inference.predictor import load_predictor
    from perpetune.params import load_params

    params = load_params(Path("params.yaml"))
    predictor = load_predictor(params.base, asked.assets, precision, params.evaluate.batch_tokens)  # type: ignore[arg-type]
    if asked.adapter:
        predictor.load_adapter("tuned", asked.adapter)
    return predictor


def take_turns(predictor: Predictor, work: Work, peer_rows: int, rounds: int) -> list[Turn]:
    systems: dict[str, tuple[Callable[[Work], list[list[float]]], int]] = {
        "perpetune": (lambda work: ours(predictor, work), len(work.asked)),
        "labels batched": (lambda work: labels_batched(predictor, work), peer_rows),
        "each label alone": (lambda work: each_label_alone(predictor, work), peer_rows),
    }
    each_label_alone(predictor, Work(work.asked[:1], work.labels[:2]))  # the first pass warms up
    turns: list[Turn] = []
    for turn in range(rounds):
        for system, (score, rows) in systems.items():
            _forget(predictor)
            began = time.perf_counter()
            scores = score(Work(work.asked[:rows], work.labels))
            seconds = time.perf_counter() - began
            answers = [work.labels[row.index(max(row))] for row in scores]
            turns.append(Turn(system, turn + 1, rows, seconds, answers))
            print(
                f"round {turn + 1}  {system:17} {rows:5} rows {seconds:8.1f} s {1000 * seconds / rows:9.1f} ms a row",
                flush=True,
            )
    return turns


def _forget(predictor: Predictor) -> None:
    """Each turn reads the instruction itself."""
    from perpetune.inference.caches.prefix_cache import PrefixCache

    predictor._prefixes = PrefixCache()


def ours(predictor: Predictor, work: Work) -> list[list[float]]:
    """Probabilities of the labels, row by row, from conversations to answers as evaluation and serving have them."""
    answers = predictor.answer(_adapter(predictor), work.asked, work.labels, 16)
    return [list((answer.probabilities or {}).values()) for answer in answers]


def each_label_alone(predictor: Predictor, work: Work) -> list[list[float]]:
    import torch

    scores: list[list[float]] = []
    with predictor._active(_adapter(predictor)) as model, torch.inference_mode():
        for prompt, tails in _tokens(predictor, work):
            scores.append([])
            for tail in tails:
                logits = model(torch.tensor([[*prompt, *tail]], device=model.device)).logits
                scores[-1].append(_score(logits[0], len(prompt), tail))
    return scores


def labels_batched(predictor: Predictor, work: Work) -> list[list[float]]:
    import torch

    pad, scores = predictor.base.tokenizer.pad_token_id, []
    with predictor._active(_adapter(predictor)) as model, torch.inference_mode():
        for prompt, tails in _tokens(predictor, work):
            longest = max(map(len, tails))
            ids = [[*prompt, *tail, *[pad] * (longest - len(tail))] for tail in tails]
            sees = [[1] * (len(prompt) + len(tail)) + [0] * (longest - len(tail)) for tail in tails]
            logits = model(
                torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(sees, device=model.device),
                logits_to_keep=longest + 1,
            ).logits
            scores.append([_score(row, 1, tail) for row, tail in zip(logits, tails, strict=True)])
    return scores


def text_at_once(predictor: Predictor, work: Work, rounds: int) -> list[float]:
    """For each round: seconds of free text to some rows one after the other, over seconds to all of them at once."""
    some, adapter = work.asked[:QUICK_ROWS], _adapter(predictor)
    return [
        _seconds(lambda: [predictor.answer(adapter, [each], None, TEXT_TOKENS) for each in some])
        / _seconds(lambda: predictor.answer(adapter, some, None, TEXT_TOKENS))
        for _ in range(rounds)
    ]


def adapter_against_base(predictor: Predictor, work: Work, rounds: int) -> list[float]:
    """For each round: seconds of some requests, one by one, to a random adapter, over those of the base in turns."""
    import torch

    from perpetune.model.adapters import trainable
    from perpetune.params import LoraParams

    with tempfile.TemporaryDirectory() as folder:
        params = LoraParams(rank=8, alpha=16, dropout=0.0, target_modules="all-linear")
        model = trainable(predictor.base, "lora", params, seed=7)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=1e-3)
        model.save_pretrained(folder)
        model.unload()  # type: ignore[operator]
        predictor.load_adapter("random", Path(folder))

    def ask(adapter: str | None, messages: tuple[Message, ...]) -> float:
        return _seconds(lambda: predictor.answer(adapter, [messages], work.labels, 16))

    some = work.asked[:QUICK_ROWS]
    ask(None, some[0]), ask("random", some[0])  # warm-up of the prefix cache
    ratios = []
    for _ in range(rounds):
        pairs = [(ask("random", messages), ask(None, messages)) for messages in some]
        ratios.append(statistics.median(adapted / bare for adapted, bare in pairs))
    predictor.unload_adapter("random")
    return ratios


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _score(logits: torch.Tensor, start: int, tail: Sequence[int]) -> float:
    """The log-probability of the tokens from `start` on."""
    steps = logits[start - 1 : start - 1 + len(tail)].float().log_softmax(-1)
    return sum(float(steps[step, token]) for step, token in enumerate(tail))


def _tokens(predictor: Predictor, work: Work) -> list[tuple[list[int], list[list[int]]]]:
    from perpetune.model.chat.chat_format import answer_tokens, prompt_tokens

    tokenizer = predictor.base.tokenizer
    tails = [answer_tokens(tokenizer, label) for label in work.labels]
    return [(prompt_tokens(tokenizer, messages), tails) for messages in work.asked]


def _adapter(predictor: Predictor) -> str | None:
    return "tuned" if "tuned" in predictor._merged else None


def compare(predictor: Predictor, work: Work, rows: int) -> Equality:
    """perpetune beside each label alone, on the same rows."""
    import torch

    from perpetune.inference.labels.label_scoring import are_many

    some = Work(work.asked[:rows], work.labels)
    exact = torch.tensor(each_label_alone(predictor, some), dtype=torch.float64).log_softmax(-1)
    found = torch.tensor(ours(predictor, some), dtype=torch.float64)
    likely = exact.exp() >= 1e-3
    return Equality(
        rows=rows,
        many=are_many([tail for _, tails in _tokens(predictor, some)[:1] for tail in tails]),
        log_probability=float((found.log() - exact)[likely].abs().max()),
        probability=float((found - exact.exp()).abs().max()),
        answers=int((found.argmax(-1) != exact.argmax(-1)).sum()),
    )


def claims_of(turns: Sequence[Turn], equality: Equality) -> list[Claim]:
    speeds = {system: [turn.row_seconds for turn in turns if turn.system == system] for system in SYSTEMS}
    claims = []
    for peer, goal in (("each label alone", GOAL), ("labels batched", 1.0)):
        ratios = [theirs / ours for ours, theirs in zip(speeds["perpetune"], speeds[peer], strict=True)]
        value = statistics.mean(ratios)
        claims.append(Claim(f"times as fast as {peer}", value, (min(ratios), max(ratios)), goal, value >= goal))
    from perpetune.inference.labels.label_scoring import TOLERANCE_OF_MANY

    granted = TOLERANCE_OF_MANY if equality.many else LOG_TOLERANCE
    differences = [
        ("largest difference of a probability from each label alone, fp32", equality.probability, granted),
        ("answers that differ from each label alone, fp32", float(equality.answers), 0.0),
    ]
    if not equality.many:
        name = "largest difference of a log-probability from each label alone, fp32"
        differences.insert(0, (name, equality.log_probability, LOG_TOLERANCE))
    for name, value, goal in differences:
        claims.append(Claim(name, value, (value, value), goal, value <= goal))
    return claims


def _ratio_claims(texts: Sequence[float], adapters: Sequence[float]) -> list[Claim]:
    named = [("times as fast: batched as sequential generation of free text", texts, 1.0, True)]
    if adapters:
        named.append(("times the seconds of the base: a request to an adapter", adapters, ADAPTER_GOAL, False))
    claims = []
    for name, ratios, goal, is_least in named:
        value = statistics.mean(ratios)
        holds = value >= goal if is_least else value <= goal
        claims.append(Claim(name, value, (min(ratios), max(ratios)), goal, holds))
    return claims


def draw(turns: Sequence[Turn], name: str) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png

    with house_style():
        figure = Figure(figsize=(7, 2.4))
        axes = figure.subplots()
        means = [
            1000 * statistics.mean(turn.row_seconds for turn in turns if turn.system == system) for system in SYSTEMS
        ]
        bars = axes.barh(SYSTEMS, means, color=[colour("challenger"), colour("base"), colour("base")])
        axes.bar_label(bars, [f"{value:,.0f}" for value in means], padding=4)
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds a row")
        write_png(figure, Path(__file__).parent / "results" / f"{name}.png")


def _work_of(asked: argparse.Namespace) -> Work:
    if asked.data:
        return _listed(asked)
    return _made_up(asked) if asked.labels else _reviews(asked)


def _source(asked: argparse.Namespace) -> str:
    if asked.data:
        return str(asked.data.parent.name or asked.data.stem)
    return f"{asked.labels}-labels" if asked.labels else "reviews"


def _made_up(asked: argparse.Namespace) -> Work:
    """Names like those of intents: some with common prefixes, some long."""
    from perpetune.curation.readers.reviews import find_wheel, product_examples

    doing = ("cancel", "change", "get_help_with", "track", "report_lost", "request", "review", "explain_fee_of")
    things = (
        "order", "delivery", "refund", "invoice", "password", "account", "card", "card_payment", "exchange_rate",
        "subscription", "newsletter", "top_up", "transfer", "warranty", "battery", "headset", "charger", "case",
        "phone_number",
    )  # fmt: skip
    labels = [f"{verb}_{thing}" for thing in things for verb in doing][: asked.labels]
    inputs = [row.input for row in product_examples(find_wheel(asked.assets), ("negative", "positive"))]
    return _work(asked, inputs, labels, "Which of these is it? Answer with one of: " + ", ".join(labels) + ".")


def _reviews(asked: argparse.Namespace) -> Work:
    from perpetune.curation.readers.reviews import find_wheel, product_examples

    labels = ["negative", "positive"]
    inputs = [row.input for row in product_examples(find_wheel(asked.assets), tuple(labels))]
    return _work(asked, inputs, labels, "Is this sentence of a review positive or negative? Answer with one word.")


def _listed(asked: argparse.Namespace) -> Work:
    rows = _read(asked.data)
    labels = sorted({row.get("output") or row["category"] for row in rows})
    inputs = [row.get("input") or row["text"] for row in rows]
    return _work(asked, inputs, labels, "Which of these is it? Answer with one of: " + ", ".join(labels) + ".")


def _read(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _work(asked: argparse.Namespace, inputs: list[str], labels: list[str], instruction: str) -> Work:
    from perpetune.records import Message, with_instruction

    random.Random(7).shuffle(inputs)
    return Work(
        [with_instruction(instruction, (Message(role="user", content=text),)) for text in inputs[: asked.rows]], labels
    )


if __name__ == "__main__":
    sys.exit(main())
