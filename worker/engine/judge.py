"""The judge: one backbone pass a batch, every frame scored under its own camera's Gaussians."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Decisions, Model
from gaussline.worker.contract.verdict import Decision, ModelRef, Opinion, Reason
from gaussline.worker.engine.book import Entry, Page
from gaussline.worker.engine.judgement import Judgement, Timing
from gaussline.worker.engine.maps import MapDesk
from gaussline.worker.engine.prepare import Refusal
from gaussline.worker.errors import DeviceFull, ModelError
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.decode_pool import DecodePool
from gaussline.worker.vision.features import FeatureExtractor, Maps
from gaussline.worker.vision.preprocess import preprocess_one, stack
from gaussline.worker.vision.runtime import device_name, use_threads
from gaussline.worker.vision.scorer import PreparedModel, Scorer
from gaussline.worker.vision.statistics import image_statistics

WARM_UP_S: Final = 2.0
"""About the longest time that a lane runs on noise before its first batch."""
FeatureShare = Callable[[str], bool]
Said = TypeVar("Said")


@dataclass(slots=True)
class BackboneJudge:
    """The engine's `Judge` over a real backbone.

    Args:
        page: the book's current page.
        write_features: whether the features of judged frames are handed on.
        allow_random: accept models with random weights (demo and tests only).
        maps: takes failed frames for their heat maps; None makes none.
        distrust: is told of a version on trial that cannot score what the stable one can, and why.
    """

    extractor: FeatureExtractor
    scorer: Scorer
    limits: ImageLimits
    page: Callable[[], Page[PreparedModel]]
    write_features: bool = False
    allow_random: bool = False
    maps: MapDesk | None = None
    pool: DecodePool | None = None
    distrust: Callable[[ModelRef, str], None] = lambda ref, why: None

    def prepare(self, model: Model) -> PreparedModel:
        """Check a model against the backbone, move it to the device, warm it up. Raises ModelError."""
        if model.spec.random_weights and not self.allow_random:
            raise ModelError("the model was fitted with random weights: its verdicts would mean nothing")
        prepared = self.scorer.prepare(model)
        # Without the backbone: that is warm, belongs to the lanes, and a pass of it would hold up theirs.
        self.scorer.warm_up(prepared)
        return prepared

    def begin_thread(self, *, computes: bool) -> None:
        """Give a lane its share of the cores. Decoding threads take one: a team in each would fight for the same."""
        use_threads(self.extractor.runtime.threads if computes else 1)
        if computes:
            self.extractor.warm_up(WARM_UP_S)

    def to_image(self, frame: Frame) -> torch.Tensor:
        """Decode and resize one frame. Raises ImageError."""
        size = self.extractor.spec.input_size
        if self.pool is None or frame.encoding == "raw":  # no codec reads a raw array
            pixels = decode(frame.data, frame.encoding, self.limits, shape=frame.shape, dtype=frame.dtype)
            return preprocess_one(pixels, size)
        with self.pool.decoded(frame.data, frame.encoding) as pixels:
            return preprocess_one(pixels, size)

    def judge(
        self, images: Sequence[torch.Tensor], cameras: Sequence[str], identities: Sequence[str]
    ) -> tuple[Sequence[Judgement | Refusal], Timing]:
        """Judge one batch under one page of the book. Raises DeviceFull where it is too large for the device."""
        try:
            return self._judge(images, cameras, identities)
        except torch.OutOfMemoryError as error:
            full = DeviceFull(str(error).partition("\n")[0][:200])
        # Not inside the handler: the error holds the frames that hold the tensors.
        torch.cuda.empty_cache()
        raise full

    def _judge(
        self, images: Sequence[torch.Tensor], cameras: Sequence[str], identities: Sequence[str]
    ) -> tuple[Sequence[Judgement | Refusal], Timing]:
        page = self.page()
        outcomes: list[Judgement | Refusal | None] = [None] * len(images)
        rows: dict[str, list[int]] = defaultdict(list)
        for row, camera in enumerate(cameras):
            rows[page.model_name(camera)].append(row)
        for name in [name for name in rows if name not in page.entries]:
            detail = page.refused.get(name, "no version of it is promoted")
            for row in rows.pop(name):
                outcomes[row] = Refusal(Reason.NO_MODEL, f"model {name!r}: {detail}")
        begin = time.perf_counter()
        judged = sorted(row for members in rows.values() for row in members)
        features: list[torch.Tensor] = []
        statistics: list[dict[str, float]] = []
        levels: Maps | None = None
        if judged:
            batch = stack([images[row] for row in judged])
            if self.write_features:
                statistics = image_statistics(batch)
            if self.maps is None:
                features = self.extractor.extract_tensors(batch)
            else:
                features, levels = self.extractor.extract_with_maps(batch)
            if self.extractor.runtime.device.startswith("cuda"):
                torch.cuda.synchronize()
        middle = time.perf_counter()
        place = {row: index for index, row in enumerate(judged)}
        for name, members in rows.items():
            own = [level[[place[row] for row in members]] for level in features] if len(rows) > 1 else features
            frames = [(cameras[row], identities[row]) for row in members]
            for row, judgement in zip(members, self._under(page, name, own, frames), strict=True):
                told = statistics[place[row]] if statistics else None
                outcomes[row] = judgement if told is None else replace(judgement, statistics=told)
        if levels is not None:
            self._explain(page, outcomes, cameras, identities, place, features, levels)
        decided = [outcome for outcome in outcomes if outcome is not None]
        return decided, Timing(middle - begin, time.perf_counter() - middle)

    def _explain(
        self,
        page: Page[PreparedModel],
        outcomes: list[Judgement | Refusal | None],
        cameras: Sequence[str],
        identities: Sequence[str],
        place: dict[int, int],
        features: list[torch.Tensor],
        levels: Maps,
    ) -> None:
        """Offer the failed frames of a batch for their heat maps, and name the maps in their judgements.

        Copies get none: the ring of maps belongs to verdicts.
        """
        assert self.maps is not None
        canaries = [entry for entry, _ in page.canaries.values()]
        models = {entry.ref: entry.model for entry in (*page.entries.values(), *canaries)}
        for row, index in place.items():
            outcome = outcomes[row]
            if isinstance(outcome, Judgement) and outcome.failed and cameras[row] not in page.copied:
                model = models[outcome.model]
                named = self.maps.offer(
                    identities[row], outcome.model, model, features, levels, index, outcome.farthest
                )
                outcomes[row] = replace(outcome, heat_map=named)

    def _under(
        self, page: Page[PreparedModel], name: str, features: list[torch.Tensor], frames: list[tuple[str, str]]
    ) -> list[Judgement]:
        """Frames of one model: judged by its stable version or its canary, with what its other channels say of them.

        A trial costs one more product of matrices, on the same features; without one this is the stable version alone.
        """
        stable = self._score(page.entries[name], features)
        canary, shadow = page.canaries.get(name), page.shadows.get(name)
        if canary is None and shadow is None:
            return stable
        drawn = [canary is not None and canary[1].takes(*frame) for frame in frames]
        other = self._on_trial(self._score, canary[0], features) if canary is not None and any(drawn) else stable
        beside = self._on_trial(self._opinions, shadow, features) if shadow is not None else None
        if other is None:
            other, drawn = stable, [False] * len(frames)
        judged = []
        for row, by_canary in enumerate(drawn):
            decides = other[row] if by_canary else stable[row]
            opinions = [_opinion(stable[row])] if by_canary else []
            if beside is not None:
                opinions.append(beside[row])
            judged.append(replace(decides, opinions=tuple(opinions)))
        return judged

    def _on_trial(
        self,
        say: Callable[[Entry[PreparedModel], list[torch.Tensor]], list[Said]],
        entry: Entry[PreparedModel],
        features: list[torch.Tensor],
    ) -> list[Said] | None:
        """What a version on trial says; None where it fails: that costs the trial, and never what stable says."""
        try:
            return say(entry, features)
        except torch.OutOfMemoryError:
            raise  # half a batch may find room
        except Exception as error:
            self.distrust(entry.ref, f"{type(error).__name__}: {str(error)[:200]}")
            return None

    def _decide(
        self, entry: Entry[PreparedModel], features: list[torch.Tensor]
    ) -> tuple[NDArray[np.float64], Decisions]:
        distances, decisions = self.scorer.decide(features, entry.model, entry.prepared)
        if not np.isfinite(decisions.scores).all():
            raise ModelError(f"model {entry.ref.name} version {entry.ref.version} gave scores that are not finite")
        return distances, decisions

    def _opinions(self, entry: Entry[PreparedModel], features: list[torch.Tensor]) -> list[Opinion]:
        """What a version that decides nothing says of frames: all that the verdict needs of it, and no more."""
        _, said = self._decide(entry, features)
        ref, rows = entry.ref, zip(said.failed.tolist(), said.scores.tolist(), said.p_values.tolist(), strict=True)
        return [
            Opinion(ref.channel, ref.version, ref.digest, Decision.FAIL if failed else Decision.PASS, score, p_value)
            for failed, score, p_value in rows
        ]

    def _score(self, entry: Entry[PreparedModel], features: list[torch.Tensor]) -> list[Judgement]:
        model, spec = entry.model, entry.model.spec
        distances, decisions = self._decide(entry, features)
        scores = decisions.scores
        levels = [cut.level for cut in spec.cuts]
        digest, device = spec.digest, device_name(self.extractor.runtime.device)
        by_level = model.combination.by_level(distances)
        regions = model.combination.farthest(distances) if self.maps is not None and decisions.failed.any() else None
        written = [level.cpu().numpy() for level in features] if self.write_features else []
        return [
            Judgement(
                model=entry.ref,
                failed=bool(decisions.failed[row]),
                score=float(scores[row]),
                threshold=model.working_point.threshold,
                p_value=float(decisions.p_values[row]),
                level_scores=dict(zip(levels, by_level[row].tolist(), strict=True)),
                backbone=spec.name,
                spec_digest=digest,
                random_weights=spec.random_weights,
                farthest=() if regions is None else tuple(regions[row].tolist()),
                device=device,
                features=tuple(level[row] for level in written) if written else None,
            )
            for row in range(len(scores))
        ]


def _opinion(judgement: Judgement) -> Opinion:
    return Opinion(
        judgement.model.channel,
        judgement.model.version,
        judgement.model.digest,
        Decision.FAIL if judgement.failed else Decision.PASS,
        judgement.score,
        judgement.p_value,
    )
