"""The seal: Ed25519 signatures of artefacts, made where a key is configured, and asked for wherever one is.

What is signed is the artefact's SHA-256 behind a fixed word, so that no signature of anything else can stand for it. A
signature says who made the bytes; it does not say of which model or line they are a version. With no keys configured
nothing is signed, and everything is taken.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gaussline.worker.errors import ArtefactError, SettingsError
from gaussline.worker.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

WORD: Final = b"gaussline artefact 1\n"
MAX_SIGNATURES: Final = 16
Signatures = Mapping[str, str]
"""Fingerprint of a public key -> signature, base64."""


class Seal:
    """Signs with one key, and trusts some.

    Args:
        key: signs; None signs nothing.
        trusted: whose signatures are taken, beside the own key's; with neither, everything is taken.
    """

    def __init__(
        self, key: Ed25519PrivateKey | None = None, trusted: Mapping[str, Ed25519PublicKey] | None = None
    ) -> None:
        self._key = key
        self._trusted = dict(trusted or {})
        if key is not None:
            self._trusted[fingerprint(key.public_key())] = key.public_key()

    def __repr__(self) -> str:
        return f"Seal(signs={self._key is not None}, trusted={sorted(self._trusted)})"

    @property
    def strict(self) -> bool:
        """Whether only what a trusted key has signed is taken."""
        return bool(self._trusted)

    def sign(self, digest: str, others: Signatures | None = None) -> dict[str, str]:
        """The signatures of an artefact: those that it has, and ours."""
        signatures = dict(others or {})
        if self._key is not None:
            raw = self._key.sign(WORD + digest.encode())
            signatures[fingerprint(self._key.public_key())] = base64.b64encode(raw).decode()
        return signatures

    def check(self, digest: str, signatures: object, what: str = "") -> None:
        """Take what a trusted key has signed. Raises ArtefactError for everything else, where there are keys."""
        if not self._trusted:
            return
        what = what or f"artefact {digest[:16]}…"
        if not isinstance(signatures, Mapping) or not signatures:
            raise ArtefactError(
                f"{what} is not signed, and only signed ones are taken here (trusted_keys or signing_key is set): sign "
                "it with 'gaussline keys sign', or publish it from where a signing key is configured"
            )
        known = [name for name in self._trusted if name in signatures]
        for name in known:
            if self._valid(self._trusted[name], digest, signatures[name]):
                return
        if known:
            raise ArtefactError(f"{what} was tampered with: its signature by key {known[0]} is not of these bytes")
        strangers = ", ".join(sorted(str(name)[:32] for name in list(signatures)[:MAX_SIGNATURES]))
        raise ArtefactError(f"{what} is signed by no trusted key, only by {strangers}: see 'gaussline keys show'")

    @staticmethod
    def _valid(key: Ed25519PublicKey, digest: str, signature: object) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            key.verify(base64.b64decode(str(signature), validate=True), WORD + digest.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


def open_seal(settings: Settings) -> Seal:
    """The seal that the settings describe. Raises SettingsError for keys that cannot be read."""
    if settings.signing_key is None and settings.trusted_keys is None:
        return Seal()
    key = None if settings.signing_key is None else read_private_key(settings.signing_key)
    trusted = {} if settings.trusted_keys is None else read_public_keys(settings.trusted_keys)
    return Seal(key, trusted)


def fingerprint(key: Ed25519PublicKey) -> str:
    """What a key is called: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def new_keys(private: Path, public: Path) -> str:
    """Make a pair of keys in two files, the private one readable by its owner alone; the fingerprint.

    Raises SettingsError where a file is there already, or cannot be written.
    """
    keys = _library()
    key = keys["ed25519"].Ed25519PrivateKey.generate()
    forms = keys["serialization"]
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    told = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    for path, data, mode in ((private, secret, 0o600), (public, told, 0o644)):
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
        except FileExistsError:
            raise SettingsError(f"{path} is there already: keys are never overwritten") from None
        except OSError as error:
            raise SettingsError(f"{path} cannot be written: {error.strerror or error}") from None
    return fingerprint(key.public_key())


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """A private key, PEM. Raises SettingsError; no text of it ever holds a part of the key."""
    keys = _library()
    data = _read("signing_key", path)
    try:
        key = keys["serialization"].load_pem_private_key(data, password=None)
    except (ValueError, TypeError, keys["unsupported"]):
        raise SettingsError(f"signing_key {path} holds no private key in PEM form without a passphrase") from None
    if not isinstance(key, keys["ed25519"].Ed25519PrivateKey):
        raise SettingsError(f"signing_key {path} is no Ed25519 key: make one with 'gaussline keys new'")
    found: Ed25519PrivateKey = key
    return found


def read_public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Public keys by fingerprint: one PEM file with one or more of them, or a folder of *.pub. Raises SettingsError."""
    keys = _library()
    files = sorted(path.glob("*.pub")) if path.is_dir() else [path]
    found: dict[str, Ed25519PublicKey] = {}
    for file in files:
        text = _read("trusted_keys", file)
        for block in text.split(b"-----BEGIN ")[1:]:
            try:
                key = keys["serialization"].load_pem_public_key(b"-----BEGIN " + block)
            except (ValueError, keys["unsupported"]):
                raise SettingsError(f"trusted_keys {file} holds something that is no public key in PEM form") from None
            if not isinstance(key, keys["ed25519"].Ed25519PublicKey):
                raise SettingsError(f"trusted_keys {file} holds a key that is no Ed25519 key")
            found[fingerprint(key)] = key
    if not found:
        raise SettingsError(f"trusted_keys {path} holds no public key: *.pub files, or one file in PEM form")
    return found


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} {path} cannot be read: {error.strerror or error}") from None


def _library() -> dict[str, Any]:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise SettingsError("signing needs one more package: pip install 'gaussline[sign]'") from None
    return {"ed25519": ed25519, "serialization": serialization, "unsupported": UnsupportedAlgorithm}
