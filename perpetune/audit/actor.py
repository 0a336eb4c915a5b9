"""Who acts: a flow run of Prefect's, or the user of this machine."""

from __future__ import annotations

import getpass
import os
import socket

FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # Prefect sets it in the processes of flow runs


def actor() -> str:
    """`flow run ID` or `USER@HOST`."""
    run = os.environ.get(FLOW_RUN)
    return f"flow run {run}" if run else f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number alone
        return f"uid {os.getuid()}"
