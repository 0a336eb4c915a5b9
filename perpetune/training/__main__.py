"""`python -m perpetune.training`: download and unpack the models of params.yaml."""

from __future__ import annotations

import sys

from perpetune.errors import PerpetuneError
from perpetune.model.weights import resolve
from perpetune.workspace import open_workspace

try:
    workspace = open_workspace()
    print(f"base model: {resolve(workspace.params.base, workspace.assets)}")
    if encoder := workspace.params.evaluate.encoder:
        print(f"encoder: {resolve(encoder, workspace.assets, setting='evaluate.encoder')}")
except PerpetuneError as fault:
    sys.exit(str(fault))
