"""`python -m perpetune.flows`: what it does is in command.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Python would look into the folder that this is started in first, and a workspace may hold a folder mlflow/ of its own.
if not sys.flags.safe_path and sys.path and Path(sys.path[0]) == Path.cwd():
    del sys.path[0]
os.environ["PYTHONSAFEPATH"] = "1"  # for the runs that it starts

from perpetune.flows.command import main

main()
