"""`python -m perpetune.training`: lay the models of params.yaml ready, so that nothing waits for them later."""

from __future__ import annotations

import sys

from perpetune.errors import PerpetuneError
from perpetune.model.weights import resolve
from perpetune.workspace import open_workspace

try:
    here = open_workspace()
    print(f"base model: {resolve(here.params.base, here.assets)}")
    if encoder := here.params.evaluate.encoder:
        print(f"encoder: {resolve(encoder, here.assets, setting='evaluate.encoder')}")
except PerpetuneError as fault:
    sys.exit(str(fault))
