from __future__ import annotations

import sys
from subprocess import run

import pytest

from perpetune.policy.verdict import Interval


def test_an_interval_with_swapped_or_missing_ends_is_refused() -> None:
    for low, high in [(0.2, 0.1), (float("nan"), 0.1)]:
        with pytest.raises(ValueError, match="interval"):
            Interval(low, high)


def test_policy_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'mlflow', 'evidently', 'pandas'}"
    code = f"import sys, perpetune.policy; sys.exit(', '.join({heavy} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
