from __future__ import annotations

import socket

import pytest

from perpetune.errors import PerpetuneError
from perpetune.serving.run import listen


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PerpetuneError, match=f"port {port} is in use") as caught:
            listen("127.0.0.1", port)
    assert "--port" in str(caught.value)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no such host.", 0), ("127.0.0.1", 99999)])
def test_an_address_that_is_not_ours(host: str, port: int) -> None:
    with pytest.raises(PerpetuneError, match="listen"):
        listen(host, port)


def test_a_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0
