"""TLS to model servers: whose certificates are trusted, and the certificate that we show (mutual TLS).

The files are read again when they change, so that a certificate may be renewed while the gateway serves.
"""

from __future__ import annotations

import errno
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perpetune.engines.openai_api.http_client.connection import Disconnected
from perpetune.errors import PerpetuneError
from perpetune.settings import Settings

logger = logging.getLogger(__name__)

# What a server says that wants a client certificate, or another one (RFC 8446, section 6.2), in OpenSSL's names.
_WANTS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
_REFUSES_CERTIFICATE = (
    "ALERT_UNKNOWN_CA",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNSUPPORTED_CERTIFICATE",
    "ALERT_DECRYPT_ERROR",
    "ALERT_ACCESS_DENIED",
)
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


@dataclass(frozen=True)
class TlsFiles:
    """Files in PEM; `prefix` begins the names of their settings. Without a CA the system's are trusted."""

    prefix: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def named(self) -> tuple[tuple[str, Path], ...]:
        """The files that are set, each after the name of its setting."""
        files = (("CA", self.ca), ("CLIENT_CERTIFICATE", self.certificate), ("CLIENT_KEY", self.key))
        return tuple((f"{self.prefix}_{name}", file) for name, file in files if file is not None)


class Tls:
    """The TLS context of connections to one kind of server. Raises PerpetuneError if a file cannot be used."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._times = self._modified()
        self._context: ssl.SSLContext | Literal[True] = tls_context(files) if files.named else True

    @property
    def context(self) -> ssl.SSLContext | Literal[True]:
        """The context of new connections; True, the client's own, without files. Unusable new files change nothing."""
        times = self._modified()
        if times != self._times:
            self._times = times
            try:
                self._context = tls_context(self.files)
            except PerpetuneError as fault:  # between the renewal of a certificate and that of its key, say
                logger.error("the TLS files of before stay in use: %s", fault)
        return self._context

    def explain(self, fault: BaseException) -> str | None:
        """What is wrong with a certificate or a setting, if that is why a TLS connection failed, as the end of a sentence."""
        found = _tls_error(fault)
        if found is not None:
            return self._explained(found)
        # Under TLS 1.3 a server checks our certificate after the handshake, and its alert may be lost when it closes.
        return f"it closed the connection; {self._suspected()}" if _is_closed(fault) else None

    def _suspected(self) -> str:
        if self.files.certificate:
            return f"it may refuse the certificate of {self.files.prefix}_CLIENT_CERTIFICATE {self.files.certificate}"
        return f"if it wants a client certificate: {self._to_show_one}"

    @property
    def _to_show_one(self) -> str:
        return f"set {self.files.prefix}_CLIENT_CERTIFICATE and {self.files.prefix}_CLIENT_KEY"

    def _explained(self, fault: ssl.SSLError) -> str | None:
        prefix, certificate = self.files.prefix, self.files.certificate
        if isinstance(fault, ssl.SSLCertVerificationError):
            trusted = (
                f"{prefix}_CA {self.files.ca}" if self.files.ca else f"the system's CAs, as {prefix}_CA is not set"
            )
            return f"its certificate is not accepted: {fault.verify_message} (trusted: {trusted})"
        reason = fault.reason or ""
        if reason.endswith(_WANTS_CERTIFICATE) and certificate is None:
            return f"it wants a client certificate: {self._to_show_one}"
        if reason.endswith(_WANTS_CERTIFICATE + _REFUSES_CERTIFICATE):
            shown = f"the certificate of {prefix}_CLIENT_CERTIFICATE {certificate}" if certificate else "the connection"
            return f"it refuses {shown}: {reason}"
        if reason in _NO_TLS:
            return f"it does not speak TLS: correct the https:// of its address, or the server ({reason})"
        return None

    def _modified(self) -> tuple[int | None, ...]:
        return tuple(_modified(file) for _, file in self.files.named)


def vllm_tls(settings: Settings) -> Tls:
    """Raises PerpetuneError if a file cannot be used, or an address of vLLM is no https:// although files are set."""
    ca, certificate, key = settings.vllm_ca, settings.vllm_client_certificate, settings.vllm_client_key
    files = TlsFiles("PERPETUNE_VLLM", ca, certificate, key)
    plain = [url for url in settings.vllm_urls if not url.startswith("https://")]
    if files.named and plain:
        raise PerpetuneError(
            f"{files.named[0][0]} is set, but {plain[0]} is reached without TLS",
            where="PERPETUNE_VLLM_URL",
            do=f"begin the address with https://, or unset {' and '.join(name for name, _ in files.named)}",
        )
    return Tls(files)


def remote_tls(settings: Settings) -> Tls:
    """For remote models and rules. Raises PerpetuneError if a file cannot be used."""
    ca, certificate, key = settings.remote_ca, settings.remote_client_certificate, settings.remote_client_key
    return Tls(TlsFiles("PERPETUNE_REMOTE", ca, certificate, key))


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or later, with the server's certificate and name checked. Raises PerpetuneError if a file cannot be used."""
    for name, file in files.named:
        _require_readable(name, file)
    if files.key and not files.certificate:
        raise PerpetuneError(
            f"{files.prefix}_CLIENT_KEY is set without a certificate",
            where=str(files.key),
            do=f"set {files.prefix}_CLIENT_CERTIFICATE too",
        )
    context = _trusting(files)
    if files.certificate:
        _show(context, files, files.certificate)
    return context


def _trusting(files: TlsFiles) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=files.ca)
    except ssl.SSLError as fault:
        raise PerpetuneError(
            f"{files.prefix}_CA holds no CA certificate in PEM ({fault.reason or fault})",
            where=str(files.ca),
            do="name the file of the CA that signed the server's certificate (-----BEGIN CERTIFICATE-----)",
        ) from fault


def _show(context: ssl.SSLContext, files: TlsFiles, certificate: Path) -> None:
    """Show the certificate to servers. The key may be in its file."""
    key = files.key or certificate
    try:
        context.load_cert_chain(certificate, key, password=_no_password(key))
    except ssl.SSLError as fault:
        if fault.reason == "KEY_VALUES_MISMATCH":
            raise PerpetuneError(
                f"the key is not that of the certificate {certificate}",
                where=str(key),
                do=f"set {files.prefix}_CLIENT_CERTIFICATE and {files.prefix}_CLIENT_KEY to a pair",
            ) from fault
        if not _holds(certificate, b"-----BEGIN CERTIFICATE-----"):
            what, where = f"{files.prefix}_CLIENT_CERTIFICATE holds no certificate in PEM", certificate
        elif not _holds(key, b"PRIVATE KEY-----"):
            what, where = f"{files.prefix}_CLIENT_KEY holds no private key in PEM", key
        else:
            what, where = f"the client certificate {certificate} or its key {key} is damaged", certificate
        raise PerpetuneError(f"{what} ({fault.reason or fault})", where=str(where), do="name files in PEM") from fault


def _no_password(key: Path) -> str:
    """Nobody is there to type one: OpenSSL would ask on the terminal, and a gateway would never start.

    Raises PerpetuneError if the key is encrypted.
    """
    if _holds(key, b"ENCRYPTED"):  # PKCS#8 in its first line, older keys in the header Proc-Type
        raise PerpetuneError(
            "the key is encrypted",
            where=str(key),
            do="keep it unencrypted, readable by the gateway alone (openssl pkey -in KEY -out PLAIN)",
        )
    return ""


def _holds(file: Path, part: bytes) -> bool:
    return part in file.read_bytes()


def _require_readable(name: str, file: Path) -> None:
    try:
        file.read_bytes()
    except OSError as fault:
        raise PerpetuneError(
            f"{name} cannot be read: {fault.strerror}", where=str(file), do="name a file that this user may read"
        ) from fault


def _modified(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns  # of the file that a link leads to, which Kubernetes exchanges
    except OSError:
        return None


def _is_closed(fault: BaseException) -> bool:
    if isinstance(fault, Disconnected) and fault.__cause__ is None:
        return True
    chain = (fault, fault.__cause__, fault.__context__)
    return any(isinstance(each, OSError) and each.errno in (errno.ECONNRESET, errno.EPIPE) for each in chain)


def _tls_error(fault: BaseException | None) -> ssl.SSLError | None:
    """The error of TLS that a client's error came from."""
    while fault is not None:
        if isinstance(fault, ssl.SSLError):
            return fault
        fault = fault.__cause__ or fault.__context__
    return None
