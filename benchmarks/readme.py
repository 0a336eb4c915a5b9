"""The table of results in README.md, written from benchmarks/results.

python benchmarks/readme.py            # rewrites it
python benchmarks/readme.py --check    # exits 1 if it is not what benchmarks/results says
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from shared.record import RESULTS

from perpetune.statistics.estimate import wilson

README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
HEAD = "| measured | perpetune | compared with | 95% interval | n |\n|---|---|---|---|---|\n"
TASKS = {
    "reviews": "reviews, 3 labels",
    "intents20": "banking77, 20 intents",
    "contracts": "contract clauses, 17 kinds",
    "intents77": "banking77, 77 intents",
}


def table() -> str:
    rows = [*_accuracies(), *_speeds(), *_decisions(), *_curation(), *_serving()]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _accuracies() -> list[list[str]]:
    """What is served after 1,000 rows, TRL's defaults after as many seconds, and the best simpler system."""
    found: dict[tuple[str, str], list[float]] = {
        (each["task"], each["system"]): each["scores"] for each in _result("recipe")["details"] if each["rows"] == 1000
    }
    rows = []
    for task, title in TASKS.items():
        scores = found[task, "perpetune"]
        simple = max(_mean(found[task, name]) for name in ("TF-IDF", "embeddings", "TF-IDF and embeddings"))
        estimate = wilson(round(sum(scores)), len(scores), 0.95)
        rows.append(
            [
                f"right answers: {title}",
                f"{100 * estimate.value:.1f}%",
                f"TRL {100 * _mean(found[task, 'TRL, equal time']):.1f}%, best linear model {100 * simple:.1f}%",
                f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}%",
                f"{len(scores)}",
            ]
        )
    return rows


def _speeds() -> list[list[str]]:
    rows = []
    for name, title in (("reviews", "short prompts"), ("banking77", "77 labels in the prompt")):
        result = _result(f"training-{name}")
        own = next(each for each in result["details"] if each["system"] == "perpetune")
        [claim] = [each for each in result["claims"] if each["claim"].startswith("times as fast as")]
        peer = claim["claim"].removeprefix("times as fast as ").replace("trl", "TRL")
        title = f"training, {title}, two cores"
        rows.append(
            [title, f"{own['tokens_per_second']:,.0f} tokens/s", f"{claim['value']:.1f} × {peer}", "—", "1 run"]
        )
    return rows


def _decisions() -> list[list[str]]:
    claims = _claims("decisions")
    simulated = f"{_result('decisions')['details']['promotions'][0]['simulated']:,}"
    rows = []
    for name, title, stated in (
        ("false promotions: A/A, 500 rows", "promotes a model that is no better", "at most 5% stated"),
        ("promoted: better by 5 points, 500 rows", "promotes a model that is 5 points better", "at least 90% aimed at"),
    ):
        value, (low, high) = claims[name]
        rows.append([title, f"{value:.1%}", stated, f"{100 * low:.1f} to {100 * high:.1f}%", simulated])
    return [*rows, *_after_decay(), *_decay()]


def _after_decay() -> list[list[str]]:
    claims = _claims("after_decay")
    simulated = f"{_result('after_decay')['details'][0]['after decay']['simulated']:,}"
    rows = []
    for name, title, stated in (
        (
            "after decay, equal: promoted",
            "after decay: promotes a model that is no better, on rows that raised no alarm",
            "at most 50% stated",
        ),
        ("after decay, worse by 5 points: promoted", "after decay: promotes a model that is 5 points worse", "—"),
    ):
        value, (low, high) = claims[name]
        rows.append([title, f"{value:.1%}", stated, f"{100 * low:.1f} to {100 * high:.1f}%", simulated])
    return rows


def _decay() -> list[list[str]]:
    details = _result("decay")["details"]
    labels = f"{details['watch']['run_length']:,.0f}"
    name = "a false alarm within 10,000 labels: independent labels, 200 reference rows"
    claim = next(each for each in _result("decay")["claims"] if each["claim"] == name)
    low, high = claim["interval"]
    found = next(
        each
        for each in details["delays"]
        if (each["drop"], each["rows"], each["own"]) == (0.1, 500, 500) and each["method"] == "perpetune"
    )
    histories = f"{found['histories']:,}"
    stated = f"at most {claim['goal']:.0%}: one in {labels} labels stated"
    return [
        [
            "a false alarm of decay in 10,000 labels",
            f"{claim['value']:.1%}",
            stated,
            f"{100 * low:.1f} to {100 * high:.1f}%",
            histories,
        ],
        ["labels until a drop of 10 points is found, median", f"{found['median']:,.0f}", "—", "—", histories],
    ]


def _curation() -> list[list[str]]:
    """A curated tenth of spoiled data against a random one, with as many training steps of the language model."""
    rows = []
    for data in ("films", "banking77, 20 intents"):
        name = f"{data}, 20% flipped, language model: a curated tenth less a random tenth"
        value, (low, high) = _claims("curation_quality")[name]
        models = [
            each
            for each in _result("curation_quality")["details"]["models"]
            if each["data"] == data and each["model"] == "language model"
        ]
        tests = sum(each["test rows"] for each in models if each["trained on"] == "a curated tenth")
        title = f"a curated tenth of {data} with 20% wrong labels"
        gain = [f"{100 * low:+.1f} to {100 * high:+.1f}", f"{tests:,}"]
        rows.append([title, f"{100 * value:+.1f} points", "a random tenth", *gain])
    return rows


def _serving() -> list[list[str]]:
    added, (low, high) = _claims("serving-overhead")["milliseconds added, p50, 1 client"]
    failed, _ = _claims("serving-swaps")["of 10000 requests failed while the champion changed"]
    return [
        [
            "gateway before vLLM, median",
            f"+{added:.1f} ms",
            "vLLM asked directly",
            f"{low:.1f} to {high:.1f} ms",
            "range of 3 rounds",
        ],
        ["requests failed while the version changed", f"{failed:.0f}", "—", "—", "10,000"],
    ]


def _result(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


def _claims(name: str) -> dict[str, tuple[float, tuple[float, float]]]:
    return {each["claim"]: (each["value"], tuple(each["interval"])) for each in _result(name)["claims"]}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    text = README.read_text(encoding="utf-8")
    wanted = TABLE.sub(lambda match: match[1] + table() + match[2], text)
    if parser.parse_args().check:
        if wanted != text:
            print("README.md: the table of results differs; run `python benchmarks/readme.py`", file=sys.stderr)
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
