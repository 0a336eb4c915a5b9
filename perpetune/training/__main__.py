"""`python -m perpetune.training`: lay the base model of params.yaml ready, so that nothing waits for it later."""

from __future__ import annotations

import sys

from perpetune.errors import PerpetuneError
from perpetune.training.base import resolve_base
from perpetune.workspace import open_workspace

try:
    here = open_workspace()
    print(f"base model: {resolve_base(here.params.base, here.assets)}")
except PerpetuneError as fault:
    sys.exit(str(fault))
