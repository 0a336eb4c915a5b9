from __future__ import annotations

import pytest
from gateways import PARAMS

from perpetune.params import ReleaseParams, ServeParams


@pytest.fixture
def params() -> ServeParams:
    return PARAMS


@pytest.fixture
def release_params() -> ReleaseParams:
    return ReleaseParams(
        strategy="immediate",
        traffic_ratio=0.1,
        margin=0.05,
        alpha=0.05,
        min_labels=50,
        max_requests=2000,
        slow_seconds=2.0,
        parity_prompts=16,
        parity_rate=1.0,
        parity_tolerance=0.05,
    )
