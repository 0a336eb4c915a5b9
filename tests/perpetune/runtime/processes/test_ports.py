from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from perpetune.errors import PerpetuneError
from perpetune.runtime.processes.ports import HIGHEST_PORT, VLLM_PORT, NamedPorts, reserved_ports
from perpetune.runtime.processes.supervisor import free_ports
from perpetune.runtime.stack import Ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_two_stacks_share_no_port_though_nothing_listens_yet() -> None:
    with reserved_ports(NamedPorts()) as one, reserved_ports(NamedPorts()) as two:
        ports = [getattr(each, name) for each in (one, two) for name in ("prefect", "mlflow", "gateway", "worker")]
        assert len(set(ports)) == 8
        assert one.prefect >= Ports.prefect and one.gateway >= Ports.gateway


def test_a_usual_port_that_is_taken_is_passed_over(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ports, "gateway", taken)
    with reserved_ports(NamedPorts()) as ports:
        assert ports.gateway > taken


def test_a_named_port_is_taken_or_refused(taken: int) -> None:
    [free] = free_ports(1)
    with reserved_ports(NamedPorts(mlflow=free)) as ports:
        assert ports.mlflow == free
        with (
            pytest.raises(PerpetuneError, match=f"port {free}, .* is in use by another `perpetune up`"),
            reserved_ports(NamedPorts(mlflow=free)),
        ):
            pass
    with (
        pytest.raises(
            PerpetuneError, match=f"port {taken}, meant for gateway, is in use by process {os.getpid()}"
        ) as no,
        reserved_ports(NamedPorts(gateway=taken)),
    ):
        pass
    assert "--gateway-port" in str(no.value)


def test_a_named_port_wins_over_a_usual_one() -> None:
    with reserved_ports(NamedPorts(gateway=free_ports(1)[0])) as first:
        usual = first.prefect
    with reserved_ports(NamedPorts(gateway=usual)) as ports:
        assert ports.gateway == usual
        assert ports.prefect != usual


def test_every_port_can_be_named() -> None:
    named = NamedPorts(*free_ports(5))
    with reserved_ports(named, vllm=True) as ports:
        assert ports == Ports(named.prefect, named.mlflow, named.gateway, named.worker, named.vllm)  # type: ignore[arg-type]
    with reserved_ports(NamedPorts(), vllm=True) as ports:
        assert ports.vllm is not None and ports.vllm >= VLLM_PORT
    with reserved_ports(NamedPorts()) as ports:
        assert ports.vllm is None


def test_a_port_for_nothing_and_a_port_for_two_are_refused() -> None:
    one, two = free_ports(2)
    with pytest.raises(PerpetuneError, match="no vLLM is started here"), reserved_ports(NamedPorts(vllm=one)):
        pass
    with (
        pytest.raises(PerpetuneError, match=f"--mlflow-port and --worker-port are both {one}"),
        reserved_ports(NamedPorts(prefect=two, mlflow=one, worker=one)),
    ):
        pass


def test_the_search_for_a_free_port_ends_at_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ports, "gateway", HIGHEST_PORT)
    monkeypatch.setattr("perpetune.runtime.processes.ports.is_free", lambda port: port != HIGHEST_PORT)
    with pytest.raises(PerpetuneError, match=f"no port from {HIGHEST_PORT} is free"), reserved_ports(NamedPorts()):
        pass
