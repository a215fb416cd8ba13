"""Until when the certificates of a connection are good: the configured files, and what the server shows."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gaussline.worker.errors import BrokerUnavailable, SettingsError
from gaussline.worker.settings import Settings

REFRESH_S = 60.0
"""Period after which the exporter looks again: a handshake a scrape would be too many."""
HANDSHAKE_S = 1.5
"""Longest wait for the server's: a scrape waits for it too."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate.

    Attributes:
        what: ca, client or server.
        place: its file, or the server's address.
        not_after_s: Unix time of its end.
    """

    what: str
    place: str
    not_after_s: float


def certificates(settings: Settings) -> list[Certificate]:
    """Those of the settings' connection; none without TLS. Of a file with several the one that ends first.

    Raises SettingsError for a file that holds none, BrokerUnavailable where the server does not show its own.
    """
    url = urlsplit(settings.redis_url.get_secret_value())
    if url.scheme != "rediss":
        return []
    files = {"ca": settings.redis_tls_ca, "client": settings.redis_tls_cert}
    found = [Certificate(what, str(path), read_end(path)) for what, path in files.items() if path is not None]
    host, port = url.hostname or "localhost", url.port or 6379
    return [*found, Certificate("server", f"{host}:{port}", _server_end(settings, host, port))]


def read_end(path: Path) -> float:
    """Unix time at which the first certificate of a PEM file ends. Raises SettingsError."""
    try:
        from cryptography import x509
    except ImportError:
        raise SettingsError("dates of certificates need one more package: pip install 'gaussline[sign]'") from None
    try:
        read = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"certificate {path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise SettingsError(f"{path} holds no certificate in PEM form") from None
    return min(certificate.not_valid_after_utc.timestamp() for certificate in read)


class CertificateWatch:
    """The same, looked at once a minute. Where a look fails, what the one before it saw stays.

    A certificate that has ended lets nobody connect, so nobody sees it any more: its alert must not end with it.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._next_s = float("-inf")
        self._found: list[Certificate] = []

    def __call__(self) -> list[Certificate]:
        """What is known now."""
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + REFRESH_S
            with contextlib.suppress(SettingsError, BrokerUnavailable):  # `gaussline doctor` tells why
                self._found = certificates(self._settings)
        return self._found


def _server_end(settings: Settings, host: str, port: int) -> float:
    context = ssl.create_default_context(cafile=settings.redis_tls_ca)
    context.check_hostname = settings.redis_tls_check_hostname
    try:
        if settings.redis_tls_cert is not None:
            context.load_cert_chain(settings.redis_tls_cert, settings.redis_tls_key)
        with (
            socket.create_connection((host, port), timeout=min(HANDSHAKE_S, settings.redis_timeout_s)) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            shown = secured.getpeercert() or {}
    except OSError as error:  # ssl.SSLError is one
        raise BrokerUnavailable(f"the certificate of {host}:{port} cannot be had: {error}") from None
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))
