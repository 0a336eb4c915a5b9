"""What a gateway loads at its start."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_gateway_without_a_linear_model_does_not_load_scikit_learn() -> None:
    script = "import sys, perpetune.gateway.server; print('sklearn' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
