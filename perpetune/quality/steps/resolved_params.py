"""The first stage: every setting as it holds, and which encoder's weights are on this machine."""

from __future__ import annotations

from perpetune.curation.running.layout import RESOLVED
from perpetune.files import write_atomic
from perpetune.model.weights import digest_here
from perpetune.params import Params, as_yaml
from perpetune.workspace import Workspace

NAME = "params"


def run(workspace: Workspace) -> str:
    """Write `data/params.yaml`: what params.yaml and the defaults give, and `encoder_weights`.

    Later stages depend on it. They run again if a default changes, and those that compare texts if the encoder arrives that
    they did without, or is another one under its old name.
    """
    params = workspace.params
    encoder = params.evaluate.encoder
    digest = digest_here(encoder, workspace.assets) if encoder and _compares_texts(params) else None
    write_atomic(workspace.root / RESOLVED, as_yaml(params) + f"encoder_weights: {digest or 'null'}\n")
    return f"every setting as it holds, in {RESOLVED}"


def _compares_texts(params: Params) -> bool:
    judges = params.label_errors.action != "off" and params.task.kind == "classification"
    return judges or params.semantic.threshold is not None or params.select.budget is not None
