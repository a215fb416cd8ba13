"""gaussline: judge every part on a production line.

The two things most programs need are here; the rest is imported from `gaussline.worker` and `gaussline.producer`.
They load on first use, so that importing the package costs nothing and pulls in neither torch nor redis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gaussline.producer.producer import Producer as Producer
    from gaussline.worker.broker.verdicts import Verdicts as Verdicts

__all__ = ["Producer", "Verdicts"]

_HOMES = {"Producer": "gaussline.producer.producer", "Verdicts": "gaussline.worker.broker.verdicts"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gaussline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
