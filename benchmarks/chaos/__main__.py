"""`python -m chaos --rounds 100 --seed 1`: prints a row a round and a table in the end; exits with 1 if something broke."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from chaos.rounds import run_chaos
from chaos.world import running_world


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", metavar="ROUND", type=int, default=1, help="begin with this round of the seed")
    parser.add_argument("--results", metavar="FOLDER", type=Path, help="write chaos.json here after each round")
    parser.add_argument("--minutes", type=float, help="begin no round after this time")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="work in this new folder, and leave the logs there")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the services end too
    with running_world(arguments.keep) as world:
        report = run_chaos(
            world,
            arguments.rounds,
            arguments.seed,
            first=arguments.first,
            minutes=arguments.minutes,
            folder=arguments.results,
        )
    report.show()
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
