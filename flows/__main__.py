"""`python -m perpetune.flows`: what it does is in command.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Python puts the working directory first on its path, and the workspace may contain a folder mlflow/.
if not sys.flags.safe_path and sys.path and Path(sys.path[0]) == Path.cwd():
    del sys.path[0]
os.environ["PYTHONSAFEPATH"] = "1"  # for the runs that it starts

from perpetune.flows.command import main

main()
