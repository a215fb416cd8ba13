"""Which kept frames a person should look at, and what is known of each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import open_seal
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.feedback import Feedback, Label
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.verdict import Decision, Verdict
from gaussline.worker.errors import GausslineError
from gaussline.worker.gaussian.combination import Combination
from gaussline.worker.settings import Settings
from gaussline.worker.vision.heatmap import shares

SCAN = 1000
"""Newest kept frames that are looked through."""
FEEDBACK = 5000
"""Newest feedback that is looked through."""
NEAR = 0.9
MODELS = 8


class Kind(StrEnum):
    """Why a frame is shown."""

    FLAGGED = "flagged"  # it failed
    NEAR = "near"  # it passed, with a score near its threshold
    SUSPECT = "suspect"  # versions of the model disagree over it, or feedback contradicts its verdict
    OTHER = "other"  # it passed, and nothing speaks against that


@dataclass(frozen=True, slots=True)
class ReviewFrame:
    """One kept frame.

    Attributes:
        kinds: every reason to look at it.
        feedback: the last word on it.
        contributions: what each level gives to the score; its distance where the version is gone.
    """

    verdict: Verdict
    kinds: frozenset[Kind]
    feedback: Feedback | None
    contributions: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """What one page shows.

    Attributes:
        counts: frames of each kind among those looked through.
        total: frames of the kind and camera that were asked for.
        scanned: frames looked through.
    """

    frames: tuple[ReviewFrame, ...]
    counts: Mapping[Kind, int]
    cameras: tuple[str, ...]
    total: int
    scanned: int


class ReviewList:
    """The kept frames of one line, sorted by reasons to look at them.

    Args:
        near: a passed frame is near the threshold from this share of it on.
    """

    def __init__(self, settings: Settings, client: Redis, *, near: float = NEAR) -> None:
        self._kept = KeptFrames.of(settings, client)
        self._feedback = FeedbackLog(client, settings.line)
        self._registry = Registry(client, settings.line, seal=open_seal(settings))
        self._near = near
        self._combinations: OrderedDict[str, Combination | None] = OrderedDict()

    def read(
        self, show: Kind | None = None, *, camera: str | None = None, skip: int = 0, count: int = 24
    ) -> ReviewPage:
        """Newest frames of one kind (None: all but the unsuspicious), from the `skip`-th on."""
        verdicts = self._verdicts()
        said = self._said()
        frames = [
            ReviewFrame(verdict, self._kinds(verdict, said.get(verdict.id)), said.get(verdict.id), {})
            for verdict in verdicts
            if camera is None or verdict.camera == camera
        ]
        counts = {kind: sum(kind in frame.kinds for frame in frames) for kind in Kind}
        wanted = [f for f in frames if (show in f.kinds if show is not None else Kind.OTHER not in f.kinds)]
        shown = tuple(
            ReviewFrame(frame.verdict, frame.kinds, frame.feedback, self._contributions(frame.verdict))
            for frame in wanted[skip : skip + count]
        )
        cameras = tuple(sorted({verdict.camera for verdict in verdicts}))
        return ReviewPage(shown, counts, cameras, len(wanted), len(verdicts))

    def verdict(self, frame_id: str) -> Verdict | None:
        """The verdict of one kept frame, None where it is kept no more."""
        return self._kept.verdicts([frame_id])[0]

    def _verdicts(self) -> list[Verdict]:
        found = self._kept.verdicts([frame.id for frame in self._kept.list(SCAN)])
        return [verdict for verdict in found if verdict is not None and verdict.score is not None]

    def _said(self) -> dict[str, Feedback]:
        """The last word on each frame."""
        said: dict[str, Feedback] = {}
        for entry in self._feedback.newest(FEEDBACK):
            if entry.feedback is not None:
                said.setdefault(entry.feedback.id, entry.feedback)
        return said

    def _kinds(self, verdict: Verdict, feedback: Feedback | None) -> frozenset[Kind]:
        failed = verdict.decision is Decision.FAIL
        kinds = {Kind.FLAGGED} if failed else set[Kind]()
        score, threshold = verdict.score or 0.0, verdict.threshold
        if not failed and threshold is not None and score >= self._near * threshold:
            kinds.add(Kind.NEAR)
        contradicted = feedback is not None and (feedback.label is Label.BAD) != failed
        if contradicted or any(opinion.decision is not verdict.decision for opinion in verdict.opinions):
            kinds.add(Kind.SUSPECT)
        return frozenset(kinds or {Kind.OTHER})

    def _contributions(self, verdict: Verdict) -> dict[str, float]:
        distances = dict(verdict.level_scores or {})
        combination = None if verdict.model is None else self._combination(verdict.model.digest)
        if combination is None:
            return distances
        return dict(zip(distances, shares(combination, list(distances.values())), strict=True))

    def _combination(self, digest: str) -> Combination | None:
        """How a version combines its levels; None where it is gone or cannot be read."""
        if digest not in self._combinations:
            try:
                model = Model.from_artefact(Artefact.unpack(self._registry.fetch(digest), digest))
                self._combinations[digest] = model.combination
            except GausslineError:
                self._combinations[digest] = None
            while len(self._combinations) > MODELS:
                self._combinations.popitem(last=False)
        return self._combinations[digest]
