"""The feedback stream: what people and an MES say of frames, in one order that every learner reads alike."""

from __future__ import annotations

from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.feedback import Feedback
from gaussline.worker.contract.frame import parse_frame_id
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import ContractError, NotFound

MAX_ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class FeedbackEntry:
    """One entry of the stream.

    Attributes:
        id: the entry's id; its first part is the time it was said, in milliseconds by Redis's clock.
        feedback: None where the entry breaks the contract (somebody wrote it by a plain XADD).
        problem: what is wrong with it, empty where nothing is.
    """

    id: str
    feedback: Feedback | None
    problem: str = ""

    @property
    def at_us(self) -> int:
        """When it was said, microseconds since the Unix epoch."""
        return int(self.id.split("-")[0]) * 1000


class FeedbackLog:
    """The feedback of one line.

    Args:
        max_entries: the oldest entries beyond this many go.
    """

    def __init__(self, client: Redis, line: str, *, max_entries: int = MAX_ENTRIES) -> None:
        self._client = client
        self._line = line
        self._keys = Keys(line)
        self._max_entries = max_entries
        self._script = Script("feedback")

    def write(self, feedback: Feedback) -> str:
        """Append feedback; its entry id. Raises NotFound, with nothing written, for a frame the line knows nothing of.

        A frame is known where it is kept, where the camera's ledger has admitted its sequence in the present epoch, or,
        of an earlier epoch, where its verdict is still on the verdict stream.
        """
        camera, epoch, sequence = parse_frame_id(feedback.id)
        answer, known = self._try(feedback, found=False)
        if answer == "forgotten":
            if Verdicts(self._client, self._line).find(feedback.id) is not None:
                answer, known = self._try(feedback, found=True)
            else:
                raise NotFound(
                    f"no frame {feedback.id}: camera {camera} is in epoch {known}, and of epoch {epoch} neither this "
                    "frame's bytes nor its verdict are left"
                )
        if answer == "unknown_camera":
            raise NotFound(f"no frame {feedback.id}: line {self._line} has no camera {camera}")
        if answer == "unknown_epoch":
            raise NotFound(f"no frame {feedback.id}: camera {camera} is only in epoch {known}")
        if answer == "unknown_sequence":
            last = f"the last sequence of epoch {epoch} is {known}" if known else f"epoch {epoch} has no frame yet"
            raise NotFound(f"no frame {feedback.id}: {last}, and {sequence} was asked for")
        return known

    def _try(self, feedback: Feedback, *, found: bool) -> tuple[str, str]:
        camera, epoch, sequence = parse_frame_id(feedback.id)
        fields = [part for pair in feedback.to_fields().items() for part in pair]
        answer, known = self._script(
            self._client,
            [self._keys.feedback, self._keys.camera(camera), self._keys.kept],
            [feedback.id, epoch, sequence, int(found), self._max_entries, *fields],
        )
        return answer.decode(), known.decode()

    def read(self, after: str = "0-0", *, count: int = 500, block_s: float | None = None) -> list[FeedbackEntry]:
        """Entries after an entry id, oldest first, broken ones among them; waits up to `block_s` where there is none.

        An entry that breaks the contract is handed over with its problem: whoever reads must pass it, count it, and
        not stop at it.
        """
        block = None if block_s is None else max(1, int(block_s * 1000))
        with translated("reading feedback"):
            answer = self._client.xread({self._keys.feedback: after}, count=count, block=block)
        return [_entry(entry_id, fields) for _, entries in answer or [] for entry_id, fields in entries]

    def newest(self, count: int = 100) -> list[FeedbackEntry]:
        """The newest entries, newest first."""
        with translated("reading feedback"):
            entries = self._client.xrevrange(self._keys.feedback, count=count)
        return [_entry(entry_id, fields) for entry_id, fields in entries]


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> FeedbackEntry:
    try:
        return FeedbackEntry(entry_id.decode(), Feedback.from_fields(fields))
    except ContractError as error:
        return FeedbackEntry(entry_id.decode(), None, str(error))
