"""Kept frames in an S3-compatible store: one object a frame, bounded by bytes and age.

For a line whose workers share no folder. An object is written before its message is settled, under a name that is the
frame's identity: a second attempt writes the same bytes again, and a crash leaves at most an object nobody asks for.
Access keys come from where every S3 client looks for them (AWS_ACCESS_KEY_ID and the like), never from our settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gaussline.worker.broker.client import redact
from gaussline.worker.contract.frame import FrameBatch, decode_batch, parse_frame_id
from gaussline.worker.errors import BrokerError, BrokerUnavailable, NotFound, SettingsError

SWEEP_S = 60.0
"""How often the bounds are enforced: a listing is a request for each thousand objects."""
AT_ONCE = 1000
"""Most objects in one request to list or to delete, by S3's own rules."""
TIMEOUT_S = 5.0
SUFFIX = ".msgpack"


class KeptS3:
    """A store of kept frames.

    Args:
        url: `s3://bucket/prefix`, with `?endpoint=https://host:port` where it is not Amazon's, and `&region=…`.
        clock: seconds since the Unix epoch, to compare with the store's own times of writing.

    Raises SettingsError for a URL that names no bucket, and where the client is not installed.
    """

    def __init__(self, url: str, *, max_bytes: int, max_age_s: float, clock: Callable[[], float] = time.time) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or set(options) - {"endpoint", "region"}:
            raise SettingsError(
                f"kept_store = {redact(url)!r} is no s3://bucket/prefix?endpoint=https://host:port&region=name"
            )
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError:
            raise SettingsError("kept_store in S3 needs boto3: pip install 'gaussline[s3]'") from None
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._swept_s = float("-inf")
        self.dropped = 0
        config = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"mode": "standard"})
        try:
            self._client: Any = boto3.client(
                "s3", endpoint_url=options.get("endpoint"), region_name=options.get("region"), config=config
            )
        except Exception as error:  # the library's own errors have no common ancestor here, ValueError among them
            raise SettingsError(f"kept_store {self._where}: {error}") from None

    @property
    def _where(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    def put(self, frame_id: str, data: bytes) -> None:
        """Write one frame. Raises BrokerUnavailable where the store does not answer, BrokerError where it refuses."""
        with self._translated(f"kept frame {frame_id} cannot be written"):
            self._client.put_object(Bucket=self._bucket, Key=self._key(frame_id), Body=data)
        if self._clock() - self._swept_s >= SWEEP_S:
            self.sweep()

    def get(self, frame_id: str) -> FrameBatch:
        """A frame batch of that one frame. Raises NotFound, saying that it was not kept or has expired."""
        with self._translated(f"kept frame {frame_id} cannot be read"):
            data = self._client.get_object(Bucket=self._bucket, Key=self._key(frame_id))["Body"].read()
        return decode_batch(data)

    def sweep(self) -> None:
        """Enforce the bounds, oldest first."""
        now = self._clock()
        self._swept_s = now
        with self._translated("kept frames cannot be swept"):
            objects = sorted(self._objects())
            held = sum(size for _, size, _ in objects)
            old: list[str] = []
            for at, size, key in objects:
                if held <= self._max_bytes and now - at <= self._max_age_s:
                    break
                old.append(key)
                held -= size
            for start in range(0, len(old), AT_ONCE):
                gone = [{"Key": key} for key in old[start : start + AT_ONCE]]
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": gone, "Quiet": True})
                self.dropped += len(gone)

    def _objects(self) -> Iterator[tuple[float, int, str]]:
        """(written at, bytes, key) of every kept frame."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix, PaginationConfig={"PageSize": AT_ONCE}
        )
        for page in pages:
            for item in page.get("Contents", ()):
                if item["Key"].endswith(SUFFIX) and "/" not in item["Key"].removeprefix(self._prefix):
                    yield item["LastModified"].timestamp(), item["Size"], item["Key"]

    def _key(self, frame_id: str) -> str:
        parse_frame_id(frame_id)  # it becomes a name
        return self._prefix + frame_id.replace(":", "_") + SUFFIX

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code == "NoSuchKey":
                raise NotFound(f"{what}: it is not kept in {self._where}, or it has expired") from None
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            kind = BrokerUnavailable if status >= 500 or status == 429 else BrokerError
            raise kind(f"{what} ({self._where}): {code or error}") from None
        except NoCredentialsError:
            raise BrokerError(f"{what} ({self._where}): no credentials; set AWS_ACCESS_KEY_ID and the like") from None
        except (BotoCoreError, OSError) as error:
            raise BrokerUnavailable(f"{what} ({self._where}): {error}") from None
