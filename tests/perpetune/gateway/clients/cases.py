"""Runs named cases one after another and prints a line for each, in the Test Anything Protocol."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

BASE = f"{sys.argv[1]}/v1"


def run(*cases: Callable[[], None]) -> None:
    failed = False
    for case in cases:
        name = case.__name__.replace("_", " ")
        try:
            case()
            print(f"ok {name}")
        except Exception:
            print(f"not ok {name}: {traceback.format_exc()}")
            failed = True
    sys.exit(failed)
