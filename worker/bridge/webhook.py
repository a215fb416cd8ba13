"""Verdicts as HTTP requests: one POST a verdict, its JSON as the body, its id as the idempotency key."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import parse_url

from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.bridge.punctual import PunctualPools
from gaussline.worker.bridge.secrets import TlsFiles
from gaussline.worker.errors import NotNow, SettingsError, Undeliverable

LANES = 64
ANSWER_BYTES = 500
"""As much of a refusal as is written down."""
LATER = frozenset({408, 409, 425})
"""The verdict may be taken later. 409: a request with the same Idempotency-Key is still being worked on."""
BUSY = frozenset({429, 503})
"""Nothing is taken at present."""
SHUT = frozenset({401, 403, 407})
"""It is the bridge that is refused, not the verdict: every verdict would be, until somebody mends it."""
RETRY_AFTER_MOST_S = 300.0
_PLAIN = ":@._~-"


@dataclass(frozen=True, slots=True)
class WebhookPlace:
    """Where to, and what to show there.

    Attributes:
        token: sent as `Authorization: Bearer`.
        sign_key: key of the signature `Gaussline-Signature`.
    """

    url: str
    tls: TlsFiles
    token: str | None = None
    sign_key: str | None = None
    timeout_s: float = 10.0


class Webhook:
    """Posts verdicts to one URL. A status of 200 to 299 means that the receiver has it."""

    lanes = LANES

    def __init__(self, place: WebhookPlace) -> None:
        parts = urlsplit(place.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(
                f"bridge_url {place.url.split('@')[-1]!r}: a webhook's is https://host/path, or http://…"
            )
        if "@" in parts.netloc:
            raise SettingsError("bridge_url holds a user or password: give a token with bridge_token_file")
        self._at = place
        try:
            parse_url(place.url)
        except LocationParseError:  # which shows all of it
            raise SettingsError(f"bridge_url {self.place} is no URL") from None
        self._pool = PunctualPools(
            num_pools=1,
            maxsize=LANES,
            retries=False,
            timeout=urllib3.Timeout(connect=place.timeout_s, read=place.timeout_s),
            ssl_context=place.tls.context() if parts.scheme == "https" else None,
        )

    @property
    def place(self) -> str:
        """The URL without its query, which may hold what nobody should read."""
        return self._at.url.split("?", 1)[0]

    def send(self, parcel: Parcel) -> None:
        """One POST. Raises Undeliverable, NotNow."""
        status, retry_after, said = self._ask("POST", parcel.body, self._headers(parcel))
        if 200 <= status < 300:
            return
        text = f"HTTP {status}" + (f": {said}" if said else "")
        if status in BUSY or status in SHUT or not 400 <= status < 600:
            raise NotNow(text, whole=True, least_s=retry_after)
        if status in LATER or status >= 500:
            raise NotNow(text, least_s=retry_after)
        raise Undeliverable(text)

    def check(self) -> str:
        """Whether somebody answers there; HEAD delivers nothing."""
        status, _, _ = self._ask("HEAD", None, self._authority())
        if status in SHUT:
            raise NotNow(f"{self.place} answers, and refuses the bridge: HTTP {status}", whole=True)
        return f"{self.place} answers (HTTP {status})"

    def close(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def _ask(self, method: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, float, str]:
        """(status, seconds of Retry-After, beginning of the answer). Raises NotNow where there is no answer."""
        try:
            answer = self._pool.request(
                method, self._at.url, body=body, headers=headers, redirect=False, preload_content=False
            )
            said = answer.read(ANSWER_BYTES + len(self._at.token or ""), decode_content=False)
            if answer.read(1, decode_content=False):
                answer.close()  # the rest of a long answer is worth less than a new connection
            else:
                answer.release_conn()
        except (HTTPError, OSError) as error:
            raise NotNow(f"{self.place} does not answer: {_plain(str(error))}", whole=True) from None
        text = said.decode("utf-8", "replace")
        if self._at.token is not None:
            text = text.replace(self._at.token, "***")  # some repeat what they refuse
        return answer.status, _retry_after(answer.headers.get("Retry-After")), _plain(text)

    def _headers(self, parcel: Parcel) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            # Part ids are any text; a header is not. What a frame's id is made of stays as it is.
            "Idempotency-Key": quote(parcel.id, safe=_PLAIN),
            "Gaussline-Line": parcel.line,
            "Gaussline-Decision": quote(parcel.decision, safe=_PLAIN),
        }
        if self._at.sign_key is not None:
            at = str(int(time.time()))
            signed = hmac.new(self._at.sign_key.encode(), at.encode() + b"." + parcel.body, hashlib.sha256)
            headers["Gaussline-Signature"] = f"t={at},v1={signed.hexdigest()}"
        if parcel.trace is not None:
            headers["traceparent"] = parcel.trace
        return headers | self._authority()

    def _authority(self) -> dict[str, str]:
        agent = {"User-Agent": "gaussline"}
        return agent if self._at.token is None else agent | {"Authorization": f"Bearer {self._at.token}"}


def _retry_after(text: str | None) -> float:
    """Seconds that the receiver asked for; a date, or nonsense, counts as none."""
    try:
        return min(RETRY_AFTER_MOST_S, max(0.0, float(text or 0.0)))
    except ValueError:
        return 0.0


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:ANSWER_BYTES].strip()
