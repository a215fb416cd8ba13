"""Tracing, where a line wants it. OpenTelemetry is imported here alone, and only once tracing is on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings

if TYPE_CHECKING:
    from gaussline.worker.tracing.spans import Spans


def open_spans(
    settings: Settings,
    service: str,
    instance: str,
    *,
    begins: bool = False,
    on_trouble: Callable[[Exception], None] = lambda error: None,
) -> Spans | None:
    """Where a process sends its spans; None where tracing is off.

    Args:
        service: such as `gaussline-worker`.
        begins: it begins traces, a share of them (`trace_share`); others only go on with those that were begun.
        on_trouble: told, from a thread of the library, where the collector did not take spans.

    Raises SettingsError where tracing is on and its packages are missing.
    """
    if settings.trace_endpoint is None:
        return None
    try:
        from gaussline.worker.tracing.spans import Otlp, Spans
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"trace_endpoint is set, but {error.name} is not installed: pip install 'gaussline[trace]'"
        ) from None
    share = settings.trace_share if begins else 1.0
    return Spans(Otlp(settings.trace_endpoint, on_trouble), service, settings.line, instance, share)
