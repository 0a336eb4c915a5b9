from __future__ import annotations

import pytest
from gateways import PARAMS

from perpetune.params import ServeParams


@pytest.fixture
def params() -> ServeParams:
    return PARAMS
