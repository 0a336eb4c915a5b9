"""The engines against real TLS servers on this machine, which ask for a client certificate or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from certificates import Authority

from perpetune.engines.engine import EngineDown
from perpetune.engines.openai_api.tls import Tls, TlsFiles, remote_tls, vllm_tls
from perpetune.engines.remote_engine import RemoteEngine, remote_answers
from perpetune.engines.vllm_engine import VllmEngine
from perpetune.errors import PerpetuneError
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import Release
from perpetune.params import BaseParams, RemoteModel, ServeParams
from perpetune.records import Message
from perpetune.settings import Settings
from perpetune.testing.fake_vllm import CharacterChat, FakeVllm

BASE = BaseParams(model="path:tiny", revision=None)
ASKED = (Message(role="system", content="Judge it."), Message(role="user", content="is it good?"))


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def serving(
    app: web.Application, certificate: tuple[Path, Path], clients: Path | None = None
) -> AsyncIterator[str]:
    """`clients` is the CA of the certificates that it asks for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answer(
    certificate: tuple[Path, Path], clients: Path | None, params: ServeParams, release: Release, **files: Path | None
) -> str:
    """What vLLM answers over TLS, with these files of ours."""

    async def run() -> str:
        async with serving(FakeVllm({"good": 0.9, "bad": 0.1}).app(), certificate, clients) as url:
            settings = Settings(vllm_url=url).model_copy(update={f"vllm_{name}": file for name, file in files.items()})
            engine = VllmEngine(url, BASE, params, CharacterChat, tls=vllm_tls(settings))
            try:
                await engine.load(release)
                [found] = await engine.answer("1", ASKED, GenerationConfig(8))
                return found.text
            finally:
                await engine.close()

    return asyncio.run(run())


@pytest.fixture
def prompted(release: Callable[..., Release]) -> Release:
    return replace(release("1", ("good", "bad")), system="prompted")


def test_a_server_of_our_ca_answers_with_and_without_a_client_certificate(
    ca: Authority, params: ServeParams, prompted: Release, tmp_path: Path
) -> None:
    server, (certificate, key) = ca.issue("server"), ca.issue("gateway")
    assert answer(server, None, params, prompted, ca=ca.ca) == "good"
    ours = {"ca": ca.ca, "client_certificate": certificate}
    assert answer(server, ca.ca, params, prompted, client_key=key, **ours) == "good"
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert answer(server, ca.ca, params, prompted, ca=ca.ca, client_certificate=both) == "good"


def test_what_is_wrong_with_a_certificate_is_said(
    ca: Authority, params: ServeParams, prompted: Release, tmp_path: Path
) -> None:
    other, server = Authority(tmp_path, "other"), ca.issue("server")

    def refused(certificate: tuple[Path, Path], clients: Path | None = None, **files: Path) -> str:
        with pytest.raises(EngineDown) as caught:
            answer(certificate, clients, params, prompted, **files)
        return str(caught.value)

    assert "certificate is not accepted: " in refused(server)
    assert "(trusted: the system's CAs, as PERPETUNE_VLLM_CA is not set)" in refused(server)
    assert f"(trusted: PERPETUNE_VLLM_CA {other.ca})" in refused(server, ca=other.ca)
    assert "has expired" in refused(ca.issue("late", days=-1), ca=ca.ca)
    assert "IP address mismatch" in refused(ca.issue("elsewhere", "10.0.0.1"), ca=ca.ca)
    # Whether the server's alert arrives before it closes the connection is a matter of luck.
    wants = "it wants a client certificate: set PERPETUNE_VLLM_CLIENT_CERTIFICATE and PERPETUNE_VLLM_CLIENT_KEY"
    assert wants in refused(server, ca.ca, ca=ca.ca)
    for authority, days in ((other, 1), (ca, -1)):
        certificate, key = authority.issue("gateway", days=days)
        found = refused(server, ca.ca, ca=ca.ca, client_certificate=certificate, client_key=key)
        assert "refuse" in found and f"the certificate of PERPETUNE_VLLM_CLIENT_CERTIFICATE {certificate}" in found


def test_a_server_without_tls_is_named_as_such(ca: Authority) -> None:
    async def run() -> None:
        runner = web.AppRunner(web.Application(), shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine = VllmEngine(
            f"https://127.0.0.1:{runner.addresses[0][1]}",
            BASE,
            ServeParams(),
            CharacterChat,
            tls=Tls(TlsFiles("PERPETUNE_VLLM", ca.ca)),
        )
        try:
            with pytest.raises(EngineDown, match="it does not speak TLS: correct the https://"):
                await engine._vllm.get("/v1/models")
        finally:
            await engine.close()
            await runner.cleanup()

    asyncio.run(run())


def test_a_renewed_certificate_is_shown_without_a_restart(
    ca: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = ca.issue("gateway", days=-1)

    def asked(engine: VllmEngine) -> asyncio.Future[object]:
        return asyncio.ensure_future(engine._vllm.get("/v1/models"))

    async def run() -> None:
        async with serving(FakeVllm().app(), ca.issue("server"), ca.ca) as url:
            tls = Tls(TlsFiles("PERPETUNE_VLLM", ca.ca, certificate, key))
            engine = VllmEngine(url, BASE, ServeParams(), CharacterChat, tls=tls)
            with pytest.raises(EngineDown, match="the certificate of PERPETUNE_VLLM_CLIENT_CERTIFICATE"):
                await asked(engine)
            new_certificate, new_key = ca.issue("renewed")
            new_certificate.replace(certificate)
            with pytest.raises(
                EngineDown, match="the certificate of PERPETUNE_VLLM_CLIENT_CERTIFICATE"
            ):  # its key is still the old one
                await asked(engine)
            assert "the key is not that of the certificate" in caplog.text
            new_key.replace(key)
            await asked(engine)
            await engine.close()

    asyncio.run(run())


def test_a_remote_model_is_reached_by_mutual_tls(
    ca: Authority, release: Callable[..., Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def complete(request: web.Request) -> web.Response:
        message = {"role": "assistant", "content": "good"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    certificate, key = ca.issue("loop")
    for name, file in (("CA", ca.ca), ("CLIENT_CERTIFICATE", certificate), ("CLIENT_KEY", key)):
        monkeypatch.setenv(f"PERPETUNE_REMOTE_{name}", str(file))

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", complete)
        async with serving(app, ca.issue("server"), ca.ca) as url:
            far = replace(release("9"), system="remote", remote=RemoteModel(url=f"{url}/v1", model="large"))
            engine = RemoteEngine(None, remote_tls(Settings()))
            await engine.load(far)
            [found] = await engine.answer("9", ASKED, GenerationConfig(8))
            assert found.text == "good"
            await engine.close()
            done = await asyncio.to_thread(remote_answers, far, [ASKED], 8, None, remote_tls(Settings()))
            assert [each.text for each in done] == ["good"]
            with pytest.raises(PerpetuneError, match="PERPETUNE_REMOTE_CA is not set"):
                await asyncio.to_thread(remote_answers, far, [ASKED], 8, None)

    asyncio.run(run())


def test_each_file_that_cannot_be_used_is_named(ca: Authority, tmp_path: Path) -> None:
    certificate, key = ca.issue("gateway")
    _, other = ca.issue("other")
    _, hidden = ca.issue("hidden", password=b"secret")
    text, cut = tmp_path / "text", tmp_path / "cut"
    text.write_text("hello")
    cut.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    cases = (
        ({"ca": tmp_path / "none"}, tmp_path / "none", "PERPETUNE_VLLM_CA cannot be read: No such file"),
        ({"ca": tmp_path}, tmp_path, "PERPETUNE_VLLM_CA cannot be read: Is a directory"),
        ({"ca": text}, text, "PERPETUNE_VLLM_CA holds no CA certificate"),
        ({"ca": cut}, cut, "PERPETUNE_VLLM_CA holds no CA certificate"),
        ({"key": key}, key, "PERPETUNE_VLLM_CLIENT_KEY is set without a certificate"),
        ({"certificate": text, "key": key}, text, "PERPETUNE_VLLM_CLIENT_CERTIFICATE holds no certificate"),
        ({"certificate": cut, "key": key}, cut, "is damaged"),
        ({"certificate": certificate}, certificate, "PERPETUNE_VLLM_CLIENT_KEY holds no private key"),
        ({"certificate": certificate, "key": text}, text, "PERPETUNE_VLLM_CLIENT_KEY holds no private key"),
        ({"certificate": certificate, "key": other}, other, f"the key is not that of the certificate {certificate}"),
        ({"certificate": certificate, "key": hidden}, hidden, "the key is encrypted"),
    )
    for files, where, what in cases:
        with pytest.raises(PerpetuneError) as caught:
            Tls(TlsFiles("PERPETUNE_VLLM", **files))
        assert caught.value.where == str(where) and what in caught.value.what and caught.value.do


def test_files_of_tls_for_an_address_without_it_are_refused(ca: Authority) -> None:
    settings = Settings(vllm_url="https://a:8000,http://b:8000", vllm_ca=ca.ca)
    with pytest.raises(PerpetuneError, match="PERPETUNE_VLLM_CA is set, but http://b:8000 is reached without TLS"):
        vllm_tls(settings)
