"""The ledger: admitted = judged + not judged + in flight, camera by camera, in one atomic read."""

from __future__ import annotations

from dataclasses import dataclass

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import Keys


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One camera's balance, in frames unless the name says otherwise.

    Attributes:
        in_flight: counted from the index of unsettled messages, never computed from the other columns.
        unsettled_messages, stream_entries: the index's length and the stream's own; they differ only by entries that
            came without admission and still wait to be dead-lettered, or whose bytes were deleted behind our back.
        backlog_age_s: age of the oldest unsettled frame.
        dropped: by the producer's policy, before admission.
        unadmitted: stream entries that came without admission and were dead-lettered.
    """

    camera: str
    admitted: int
    passed: int
    failed: int
    not_judged: int
    in_flight: int
    in_flight_bytes: int
    counted_bytes: int
    backlog_age_s: float
    unsettled_messages: int
    stream_entries: int
    duplicates: int
    busy: int
    fenced: int
    dropped: int
    unadmitted: int
    epoch: int
    last_admitted_us: int

    @property
    def judged(self) -> int:
        """Passed and failed."""
        return self.passed + self.failed

    @property
    def imbalance(self) -> int:
        """Admitted less everything it must equal; anything but 0 is a fault."""
        return self.admitted - self.judged - self.not_judged - self.in_flight

    @property
    def balances(self) -> bool:
        """Frames balance, and so do the bytes."""
        return self.imbalance == 0 and self.in_flight_bytes == self.counted_bytes


@dataclass(frozen=True, slots=True)
class Ledger:
    """All cameras of a line at one moment, `now_us` by Redis's clock."""

    rows: tuple[LedgerRow, ...]
    now_us: int

    @property
    def balances(self) -> bool:
        """Every camera balances."""
        return all(row.balances for row in self.rows)

    @property
    def in_flight(self) -> int:
        """Frames admitted and not settled."""
        return sum(row.in_flight for row in self.rows)


def read_ledger(client: Redis, line: str) -> Ledger:
    """Read the ledger of a line. Raises BrokerUnavailable, BrokerError."""
    keys = Keys(line)
    rows, now = _SCRIPT(client, [keys.cameras], [keys.prefix])
    now_us = int(now[0]) * 1_000_000 + int(now[1])
    return Ledger(tuple(_row(*row, now_us=now_us) for row in rows), now_us)


_SCRIPT = Script("ledger")


def _row(
    camera: bytes,
    columns: list[bytes | None],
    frames: int,
    size: int,
    oldest: bytes,
    indexed: int,
    entries: int,
    *,
    now_us: int,
) -> LedgerRow:
    admitted, passed, failed, not_judged, counted, duplicates, busy, fenced, dropped, unadmitted, epoch, last = (
        int(value or 0) for value in columns
    )
    return LedgerRow(
        camera=camera.decode("utf-8", "replace"),
        admitted=admitted,
        passed=passed,
        failed=failed,
        not_judged=not_judged,
        in_flight=frames,
        in_flight_bytes=size,
        counted_bytes=counted,
        backlog_age_s=max(0.0, (now_us - int(oldest)) / 1e6) if frames else 0.0,
        unsettled_messages=indexed,
        stream_entries=entries,
        duplicates=duplicates,
        busy=busy,
        fenced=fenced,
        dropped=dropped,
        unadmitted=unadmitted,
        epoch=epoch,
        last_admitted_us=last,
    )
