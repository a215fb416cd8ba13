"""Retrying dead letters: their frames come in again, as new frames that name the old ones.

A frame has exactly one verdict, and the frame of a dead letter has had it: `not_judged`. So a retry gives its bytes a
new identity, in a camera of its own (`<camera>.retry`): opening a new epoch of the frame's own camera would fence off
its producer. Admitting the new frame and removing the letter are one atomic step, so a letter is retried once.
"""

from __future__ import annotations

from dataclasses import replace

from gaussline.worker.broker.admission import Admission, Answer, Request, Status
from gaussline.worker.broker.cameras import DEFAULT_MODEL, read_cameras, set_camera
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.sets import Sets
from gaussline.worker.contract.dead_letter import METADATA_ONLY, DeadLetter
from gaussline.worker.contract.frame import Frame, decode_batch, encode_batch, frame_id
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import Backlogged, ContractError, Fenced, NotFound

SUFFIX = ".retry"


class Retrier:
    """Admits dead letters of one line again.

    Args:
        camera_budget_bytes, line_budget_bytes: as admission has them.
    """

    def __init__(self, client: Redis, line: str, *, camera_budget_bytes: int, line_budget_bytes: int) -> None:
        self._client = client
        self._line = line
        self._budgets = {"camera_budget_bytes": camera_budget_bytes, "line_budget_bytes": line_budget_bytes}
        self._open: dict[str, _Door] = {}

    def retry(self, entry_id: str, letter: DeadLetter) -> list[str]:
        """Admit one letter's frames again; their new ids.

        Raises ContractError where its bytes are no frame batch, Backlogged where the line is full (nothing was done),
        NotFound where the letter is gone, Fenced where somebody else retries letters of this camera.
        """
        frames = retry_frames(letter)
        camera = letter.camera if letter.camera.endswith(SUFFIX) else letter.camera + SUFFIX
        door = self._door(camera, letter.camera.removesuffix(SUFFIX))
        payload = encode_batch(camera, door.epoch, door.sequence, frames)
        request = Request(door.epoch, door.sequence, len(frames), payload)
        answer = door.admission.admit_letter(request, entry_id, letter.reason.value)
        _check(answer, letter, camera)
        first, door.sequence = door.sequence, door.sequence + len(frames)
        return [frame_id(camera, door.epoch, first + offset) for offset in range(len(frames))]

    def _door(self, camera: str, original: str) -> _Door:
        if camera not in self._open:
            check_name("camera", camera)
            settings = read_cameras(self._client, self._line)
            model = settings[original].model if original in settings else DEFAULT_MODEL
            admission = Admission(self._client, self._line, camera, **self._budgets)
            self._open[camera] = _Door(admission, admission.open({"model": model}))
            if camera in settings and settings[camera].model != model:
                set_camera(self._client, self._line, camera, model=model)
            sets = Sets(self._client, self._line)
            stands = sets.assignments([original, camera])
            if stands[camera].settled_by != stands[original].settled_by:
                sets.move(camera, stands[original].settled_by, by="dead retry", seen=stands[camera])
        return self._open[camera]


class _Door:
    """The door of one retry camera, and the next sequence."""

    def __init__(self, admission: Admission, epoch: int) -> None:
        self.admission = admission
        self.epoch = epoch
        self.sequence = 0


def retry_frames(letter: DeadLetter) -> list[Frame]:
    """The frames of a letter, as they are admitted again: each names the old one, none has a deadline.

    Raises ContractError where there are none.
    """
    if not letter.data:
        why = "that reason keeps none" if letter.reason in METADATA_ONLY else "the message's first frame has them"
        raise ContractError(f"dead letter {letter.id} has no bytes to retry: {why}")
    try:
        batch = decode_batch(letter.data)
    except ContractError as error:
        raise ContractError(f"dead letter {letter.id} holds no frame batch: {error}") from None
    admitted = frame_id(batch.camera, batch.epoch, batch.first_sequence) == letter.id
    frames = []
    for offset, frame in enumerate(batch.frames):
        if not isinstance(frame, Frame):
            raise ContractError(f"dead letter {letter.id} holds a frame that breaks the contract: {frame.detail}")
        old = frame_id(batch.camera, batch.epoch, batch.first_sequence + offset) if admitted else letter.id
        frames.append(replace(frame, deadline_us=None, retry_of=frame.retry_of or old))
    return frames


def _check(answer: Answer, letter: DeadLetter, camera: str) -> None:
    if answer.status is Status.BUSY:
        raise Backlogged(f"the line is busy (the budget of the {answer.why} is full): dead letter {letter.id} waits")
    if answer.status is Status.GONE:
        raise NotFound(f"dead letter {letter.id} is gone: somebody retried or dropped it, or it was too old")
    if answer.status is not Status.ADMITTED:
        raise Fenced(f"camera {camera} was taken by another retry meanwhile: dead letter {letter.id} waits")
