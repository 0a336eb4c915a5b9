"""A gateway in a process of its own, over a tiny random model, with every path and a key: `FOLDER URL`.

It prints its port and the key. Version 1 writes freely, version 2 gives labels, version 3 writes JSON of a schema.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

from byte_models import random_byte_model
from hostile_json import KNOWN_ID, TASK
from hostile_requests import SCHEMA

from perpetune.engines.transformers_engine import TransformersEngine
from perpetune.gateway.api.approval_routes import Approvals, Waiting
from perpetune.gateway.app import create_app
from perpetune.gateway.server import listen, run
from perpetune.inference.predictor import Predictor
from perpetune.model.release import Release, Trial
from perpetune.params import BaseParams, ServeParams
from perpetune.prediction_log.api_keys import add_key
from perpetune.prediction_log.database import open_log
from perpetune.testing.fake_registry import FakeSource

PARAMS = ServeParams(
    engine="transformers",
    poll_seconds=0.2,
    max_batch=8,
    max_request_chars=2000,
    max_queue=1000,
    timeout_seconds=20,
    requests_per_minute=None,
    wrong_keys_per_minute=100_000,
    cors_origins=("https://app.example.com",),
)


def main(folder: Path, url: str) -> None:
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    base = BaseParams(model="path:tiny", revision=None)

    free = Release(TASK, "1", folder, "Judge it.", None, base, system="prompted")
    labels = replace(free, version="2", labels=("good", "bad"))
    releases = [free, labels, replace(free, version="3", output_schema=SCHEMA)]
    source = FakeSource(releases, champion="1", previous="3", trial=Trial("2", "canary", 0.3))
    log = open_log(url)
    key = add_key(log, "fuzz", ["admin", "ask", "feedback"])
    app = create_app(
        TASK,
        engine=TransformersEngine(Predictor(random_byte_model(), 4096), base, PARAMS),
        source=source,
        log=log,
        params=PARAMS,
        max_new_tokens=4,
        spool=folder / "spool",
        workspace_id=KNOWN_ID,
        approvals=Approvals(lambda: [Waiting(version="3", until=None, flow_run=None)], lambda *answer: "run"),
    )
    with listen("127.0.0.1", 0) as address:
        print(address.getsockname()[1], key, flush=True)
        run(app, address, grace_seconds=5, drain_seconds=0, params=PARAMS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
