"""What a transport must show and trust: certificates and secrets, all of them from files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from gaussline.worker.errors import SettingsError

MAX_SECRET_BYTES = 64 * 1024


def read_secret(setting: str, file: Path | None) -> str | None:
    """The text of a secret's file without the white space around it; None for no file.

    Raises SettingsError that names the file and never what is in it.
    """
    if file is None:
        return None
    try:
        if file.stat().st_size > MAX_SECRET_BYTES:
            raise SettingsError(f"{setting} {file} is over {MAX_SECRET_BYTES} bytes: it is no secret's file")
        secret = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"{setting} {file} cannot be read: {said}") from None
    if not secret or not secret.isprintable():
        raise SettingsError(f"{setting} {file} holds no secret: one line of text is needed")
    return secret


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificates, as PEM files.

    Attributes:
        ca: authorities to trust instead of the system's.
        certificate, key: what this side shows; both or neither.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A client's context that checks the receiver's certificate and name. Raises SettingsError."""
        for setting, file in (("bridge_ca_file", self.ca), ("bridge_cert_file", self.certificate)):
            if file is not None and not file.is_file():
                raise SettingsError(f"{setting} {file} is no file")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:
            raise SettingsError(f"bridge_ca_file {self.ca} holds no certificate: {_said(error)}") from None
        if (self.certificate is None) != (self.key is None):
            raise SettingsError("bridge_cert_file and bridge_key_file: give both or neither")
        if self.certificate is not None:
            try:
                # A key under a password would ask for it at the terminal; an answer of our own makes it an error.
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"bridge_cert_file {self.certificate} and bridge_key_file {self.key} do not make a pair without "
                    f"a password: {_said(error)}"
                ) from None
        return context


def _said(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
