"""A line on a real Redis, seen from outside the producer: what was admitted, and a worker that settles it."""

from __future__ import annotations

from dataclasses import dataclass, field

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.ledger import LedgerRow, read_ledger
from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.contract.frame import Frame, decode_batch, frame_id
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.verdict import Decision, Reason, Verdict

LINE = "line1"


@dataclass
class Line:
    """One line, `client` being a connection past every proxy."""

    server: EmbeddedRedis
    client: Redis
    keys: Keys = field(default_factory=lambda: Keys(LINE))

    @property
    def socket_path(self) -> str:
        return self.server.url.removeprefix("unix://")

    def entries(self, camera: str = "cam1") -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The entries of the camera's stream."""
        return list(self.client.xrange(self.keys.frames(camera)))

    def payloads(self, camera: str = "cam1") -> list[bytes]:
        """What the messages in flight carry, oldest first."""
        return [self.client.get(self.keys.payload(camera, entry.decode())) for entry, _ in self.entries(camera)]

    def admitted(self, camera: str = "cam1") -> dict[str, Frame]:
        """Every frame of the stream by its id; no id may occur twice."""
        frames: dict[str, Frame] = {}
        for (_, fields), payload in zip(self.entries(camera), self.payloads(camera), strict=True):
            batch = decode_batch(payload)
            assert len(batch.frames) == int(fields[b"n"])
            for offset, frame in enumerate(batch.frames):
                identity = frame_id(batch.camera, batch.epoch, batch.first_sequence + offset)
                assert identity not in frames, f"{identity} is doubled"
                assert isinstance(frame, Frame), frame
                frames[identity] = frame
        return frames

    def ledger(self, camera: str = "cam1") -> LedgerRow:
        """The camera's row; it must balance."""
        ledger = read_ledger(self.client, LINE)
        assert ledger.balances
        return next(row for row in ledger.rows if row.camera == camera)

    def settle_one(self) -> int:
        """Be a worker for one message: judge none of its frames. How many there were."""
        messages = Intake(self.client, LINE, "tester").take(max_frames=1, max_bytes=1)
        for message in messages[:1]:
            ids = [
                (
                    message.first_sequence + offset,
                    frame_id(message.camera, message.epoch, message.first_sequence + offset),
                )
                for offset in range(message.frame_count)
            ]
            verdicts = [
                (
                    identity,
                    "not_judged",
                    Verdict(
                        identity,
                        LINE,
                        message.camera,
                        message.epoch,
                        sequence,
                        Decision.NOT_JUDGED,
                        "tester",
                        message.admitted_us,
                        reason=Reason.NO_MODEL,
                    ).to_open_json(),
                )
                for sequence, identity in ids
            ]
            assert Settler(self.client, LINE).settle([Settlement(message.camera, message.entry_id, verdicts)]) == [True]
            return message.frame_count
        return 0
