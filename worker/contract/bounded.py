"""msgpack from outside, unpacked under bounds.

msgpack's own limits bound each container, not their number: 16 MB of nested empty lists become more than 1 GB of Python
objects in a few seconds. Here containers are counted while they are built, and the count ends it.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import msgpack

from gaussline.worker.errors import ContractError, LimitExceeded

MAX_MAP = 256


def unpack(payload: bytes, *, max_bytes: int, max_array: int, max_containers: int) -> Any:
    """Unpack one msgpack value.

    Args:
        max_bytes: size of the payload.
        max_array: elements of one array.
        max_containers: arrays and maps in all.

    Raises LimitExceeded for what is over a bound, ContractError for bytes that are no msgpack, or more than one value.
    """
    if len(payload) > max_bytes:
        raise LimitExceeded(f"message of {len(payload)} bytes is over the limit of {max_bytes} bytes")
    left = max_containers

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise LimitExceeded(f"message nests more than {max_containers} arrays and maps")
        return container

    try:
        return msgpack.unpackb(
            payload,
            raw=False,
            # A text that is no UTF-8 stays recognisable (see `is_text`), so that it costs its own frame and no other's.
            unicode_errors="surrogateescape",
            use_list=True,
            strict_map_key=True,
            object_hook=count,
            list_hook=count,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            max_array_len=max_array,
            max_map_len=MAX_MAP,
            max_ext_len=0,
        )
    except LimitExceeded:
        raise
    except Exception as error:  # every failure of the foreign decoder means the same here, and it raises many kinds
        kind = LimitExceeded if "exceeds max_" in str(error) else ContractError
        raise kind(f"message is not readable msgpack: {type(error).__name__}: {str(error)[:200]}") from None


def is_text(value: object, max_bytes: int) -> TypeGuard[str]:
    """Whether a value is a text of at most so many bytes, and was UTF-8."""
    if not isinstance(value, str) or len(value) > max_bytes:
        return False
    try:
        return len(value.encode("utf-8")) <= max_bytes
    except UnicodeEncodeError:
        return False
