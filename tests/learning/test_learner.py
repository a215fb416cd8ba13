"""The learner folds the log into exactly the moments of the frames that may teach, whatever the cuts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import SettingsError
from gaussline.worker.gaussian.covariance import estimate
from gaussline.worker.learning.block import BROKEN, OTHER_SPEC, OTHER_WIDTH, Block, level_slices, read_block
from gaussline.worker.learning.gate import Bar
from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.obedience import obey
from gaussline.worker.learning.policy import Policy
from gaussline.worker.settings import Settings
from tests.learning.log import Rows, entries, events, fitted
from tests.learning.synthetic import SPEC, normal

MODEL, ARTEFACT = fitted()
OPEN = Policy(block=32, quarantine_s=0.0, watch=False)


def feed(learner: Learner, items: list[FeatureEvent | Order], first: int = 1) -> None:
    """Fold whole blocks of a log."""
    log = entries(items, first)
    size = learner.policy.block
    assert len(log) % size == 0
    for start in range(0, len(log), size):
        learner.fold(read_block(log[start : start + size], SPEC), obey)


def frames(rows: Rows, **options: object) -> list[FeatureEvent]:
    return events(MODEL, ARTEFACT.digest, rows, **options)  # type: ignore[arg-type]


def test_streaming_is_batch_ledoit_wolf_over_random_cuts() -> None:
    """100,000 events in cuts of random sizes: covariance and mean as scikit-learn's, 1e-10 relative."""
    rng = np.random.default_rng(3)
    n = 100_000
    joined = np.concatenate(normal(n, 5), axis=1)
    p_values = rng.random(n)
    reservoir = rng.random(n) < 0.1
    template = frames([level[:1] for level in normal(1, 5)])[0]
    learner, spec_digest = Learner.start(SPEC, OPEN), SPEC.digest
    start = 0
    while start < n:
        end = min(n, start + int(rng.integers(1, 600)))
        made = [
            FeatureEvent(
                **{name: getattr(template, name) for name in ("camera", "captured_us", "decision", "model", "version")},
                id=f"cam1:1:{row}",
                admitted_us=template.admitted_us + row * 1000,
                digest=ARTEFACT.digest,
                spec_digest=spec_digest,
                score=1.0,
                p_value=float(p_values[row]),
                features=(),
                reservoir=bool(reservoir[row]),
            )
            for row in range(start, end)
        ]
        learner.fold(Block([(f"{end}-0", 1)] * (end - start), made, joined[start:end]), obey)
        start = end
    accepted = (p_values > OPEN.gate_p) & ~reservoir
    assert learner.counts["taught"] == accepted.sum()
    for level, place in zip(learner.moments, level_slices(SPEC.channels), strict=True):
        x = joined[accepted][:, place].astype(np.float64)
        batch = LedoitWolf().fit(x)
        streamed = estimate(level)
        assert np.linalg.norm(streamed.matrix - batch.covariance_) <= 1e-10 * np.linalg.norm(batch.covariance_)
        assert streamed.shrinkage == pytest.approx(batch.shrinkage_, rel=1e-10)
        assert np.linalg.norm(level.mean - batch.location_) <= 1e-10 * np.linalg.norm(batch.location_)


def test_only_frames_over_the_gate_teach_and_none_of_the_reservoir() -> None:
    made = frames(normal(320, 7))
    learner = Learner.start(SPEC, OPEN)
    feed(learner, list(made))
    chosen = [event for event in made if event.p_value > OPEN.gate_p and not event.reservoir]
    assert 0 < len(chosen) < len(made)
    assert learner.moments[0].count == len(chosen)
    assert np.allclose(learner.moments[2].mean, np.mean([event.features[2] for event in chosen], axis=0), rtol=1e-5)
    assert len(learner.reservoir) == sum(event.reservoir for event in made)


def test_a_frame_that_failed_never_teaches_by_itself_however_low_the_gate() -> None:
    made = frames(normal(320, 7), reservoir_share=0.0)
    low = Policy(block=32, quarantine_s=0.0, watch=False, gate_p=0.001)
    learner = Learner.start(SPEC, low)
    feed(learner, list(made))
    wrong = sum(event.decision is Decision.FAIL for event in made)
    assert wrong > 5
    assert all(event.p_value > low.gate_p for event in made)
    assert learner.moments[0].count == len(made) - wrong


def test_a_redelivered_frame_teaches_once() -> None:
    made = frames(normal(64, 7))
    learner = Learner.start(SPEC, OPEN)
    feed(learner, [event for event in made for _ in range(2)])
    once = Learner.start(SPEC, OPEN)
    feed(once, list(made))
    assert learner.moments[0].count == once.moments[0].count > 0
    assert learner.counts["seen.duplicate"] == 64
    assert len(learner.reservoir) == len(once.reservoir)


def test_frames_wait_for_the_quarantine() -> None:
    policy = Policy(block=32, quarantine_s=100.0, watch=False)
    learner = Learner.start(SPEC, policy)
    made = frames(normal(320, 7))
    feed(learner, list(made[:128]))  # a frame a second: the first block ended 96 s ago
    assert learner.moments[0].count == 0
    feed(learner, list(made[128:160]), 129)
    assert learner.taught == 1
    assert learner.taught_id == "32-0"
    assert learner.scouted_id == "160-0"


def test_an_objection_keeps_a_frame_and_its_neighbourhood_from_teaching() -> None:
    policy = Policy(block=32, quarantine_s=64.0, neighbourhood_s=5.0, watch=False)
    made = frames(normal(320, 7))
    plain = Learner.start(SPEC, policy)
    feed(plain, list(made[:96] + made[96:288]))
    told = Learner.start(SPEC, policy)
    bad = next(event for event in made[40:56] if event.p_value > policy.gate_p and not event.reservoir)
    row = made.index(bad)
    feed(told, [*made[:64], Order(OrderKind.BAD, "ada", frame=bad.id), *made[64:287]])
    near = [e for e in made[row - 5 : row + 6] if e.p_value > policy.gate_p and not e.reservoir]
    late = [e for e in made[287:288] if e.p_value > policy.gate_p]  # the order took a place in the last block
    assert plain.moments[0].count - told.moments[0].count in (len(near), len(near) + len(late))
    assert len(told.bank) == 1
    assert (told.bank[0] == np.concatenate(bad.features)).all()


def test_good_feedback_opens_the_gate_with_a_bounded_weight() -> None:
    made = frames(normal(96, 7))
    outlier = frames([level + np.float32(100.0) for level in normal(1, 8)], first=1000, reservoir_share=0.0)[0]
    assert outlier.p_value <= OPEN.gate_p
    policy = Policy(block=32, quarantine_s=40.0, watch=False)
    learner = Learner.start(SPEC, policy)
    order = Order(OrderKind.GOOD, "ada", frame=outlier.id)
    feed(learner, [*made[:31], outlier, order, *made[31:62]])
    feed(learner, [*frames(normal(64, 9), first=2000)], 65)
    weight = (learner.gate.edges[ARTEFACT.digest] / outlier.score) ** 2
    plain = Learner.start(SPEC, policy)
    feed(plain, [*made[:31], outlier, *made[31:63]])
    feed(plain, [*frames(normal(64, 9), first=2000)], 65)
    added = learner.moments[0].weight - plain.moments[0].weight
    assert learner.counts["labelled.good"] == 1
    # When it taught, the gate's edge lay no farther out than it does now.
    assert 0.0 < added % 1.0 <= weight * (1.0 + 1e-6)
    assert weight < 0.01
    # It pulls the scatter no more than a frame on the edge of the gate does.
    assert weight * outlier.score**2 <= learner.gate.edges[ARTEFACT.digest] ** 2 * (1 + 1e-9)


def test_freeze_and_resume_are_orders_in_the_log() -> None:
    made = frames(normal(128, 7))
    learner = Learner.start(SPEC, OPEN)
    feed(learner, [*made[:32], Order(OrderKind.FREEZE, "ada"), *made[32:95]])
    before = learner.moments[0].count
    assert before == sum(e.p_value > OPEN.gate_p and not e.reservoir for e in made[:32])
    feed(learner, [*made[95:96], Order(OrderKind.RESUME, "ada"), *made[96:126]], 97)
    assert learner.moments[0].count > before


def test_forgetting_halves_the_weight_by_frames_and_by_hours() -> None:
    made = frames(normal(640, 7), reservoir_share=0.0)
    for policy, half in (
        (Policy(block=32, quarantine_s=0.0, watch=False, half_life_frames=100.0), 100.0),
        (Policy(block=32, quarantine_s=0.0, watch=False, half_life_hours=100.0 / 3600.0), 100.0),
    ):
        learner = Learner.start(SPEC, policy)
        feed(learner, list(made))
        # Σ 0.5^(age/half) over so many frames, block by block, is about half/ln 2.
        assert learner.moments[0].weight == pytest.approx(half / np.log(2.0), rel=0.25)
        assert learner.moments[0].count > 500
    mixed = Policy(block=32, quarantine_s=0.0, watch=False, level_half_life_frames={"deep": 50.0})
    learner = Learner.start(SPEC, mixed)
    feed(learner, list(made))
    assert learner.moments[2].weight < 120.0
    assert learner.moments[0].weight == learner.moments[0].count


def test_levels_forget_by_their_settings() -> None:
    settings = Settings.load({}, learn_level_half_life_frames=" deep=50, shallow = 2000 ")
    assert Policy.of(settings).level_half_life_frames == {"deep": 50.0, "shallow": 2000.0}
    for text, word in (("deep", "is no level=frames"), ("deep=x", "is no level=frames"), ("deep=-1", "not over 0")):
        with pytest.raises(SettingsError, match=word):
            Policy.of(Settings.load({}, learn_level_half_life_frames=text))
    with pytest.raises(SettingsError, match="half-life of level dep: the levels are shallow, middle, deep"):
        Learner.start(SPEC, Policy(level_half_life_frames={"dep": 50.0}))


def test_broken_events_touch_nothing_and_are_counted() -> None:
    good = frames(normal(3, 7), reservoir_share=0.0)
    alien = FeatureEvent.decode(good[0].encode())
    other = FeatureEvent(
        **{name: getattr(alien, name) for name in alien.__slots__ if name != "spec_digest"}, spec_digest="f" * 64
    )
    narrow = FeatureEvent(
        **{name: getattr(alien, name) for name in alien.__slots__ if name != "features"}, features=alien.features[:2]
    )
    poison = good[1].encode().replace(good[1].features[0].tobytes(), np.full(6, np.nan, "<f4").tobytes())
    log = entries([good[0], other, narrow, good[2]])
    log.insert(2, type(log[0])("9-0", poison, False))
    block = read_block(log, SPEC)
    assert block.refused == {OTHER_SPEC: 1, OTHER_WIDTH: 1, BROKEN: 1}
    learner = Learner.start(SPEC, OPEN)
    learner.fold(block, obey)
    clean = Learner.start(SPEC, OPEN)
    clean.fold(read_block(entries([good[0], good[2]]), SPEC), obey)
    assert learner.moments[2].scatter.tobytes() == clean.moments[2].scatter.tobytes()
    assert learner.counts["refused.broken"] == 1


def test_a_clock_that_jumps_neither_forgets_nor_ends_a_quarantine() -> None:
    policy = Policy(block=32, quarantine_s=300.0, half_life_hours=1.0, watch=False)
    learner = Learner.start(SPEC, policy)
    made = frames(normal(96, 7), every_us=100_000)
    day = 86_400_000_000
    ahead = frames(normal(32, 8), first=10_000, every_us=100_000, start_us=1_700_000_000_000_000 + day)
    feed(learner, [*made[:64], *ahead, *made[64:96]])
    assert learner.taught == 0, "a jump of a day ended the quarantine"
    assert learner.clock.jumps == 1
    assert learner.clock.elapsed_us < 120_000_000


@pytest.mark.parametrize("bound", ["frames", "bytes", "age"])
def test_the_reservoir_is_bounded_in_frames_bytes_and_age(bound: str) -> None:
    """A frame a second, every tenth into the reservoir, and always the newest of them."""
    size = 4 * sum(SPEC.channels)
    bounds = {"frames": {"reservoir_frames": 20}, "bytes": {"reservoir_bytes": 20 * size}}
    policy = Policy(block=32, quarantine_s=0.0, watch=False, **bounds.get(bound, {"reservoir_age_s": 200.0}))
    learner = Learner.start(SPEC, policy)
    made = frames(normal(640, 7))
    drawn = [event.id for event in made if event.reservoir]
    for start in range(0, 640, 32):
        feed(learner, list(made[start : start + 32]), 1 + start)
        held = [name for page in learner.reservoir.pages for name in page.ids]
        assert held == [name for name in drawn if int(name.rpartition(":")[2]) < start + 32][-len(held) :]
        if bound == "frames":
            assert len(held) - len(learner.reservoir.pages[0]) < 20
        elif bound == "bytes":
            assert learner.reservoir.size_bytes <= 20 * size
        else:
            assert learner.clock.elapsed_us - int(learner.reservoir.pages[0].at_us[0]) <= 200_000_000
    assert 8 <= len(held) < len(drawn)


def test_an_idle_reservoir_grows_old_too() -> None:
    learner = Learner.start(SPEC, Policy(block=32, quarantine_s=0.0, watch=False, reservoir_age_s=200.0))
    feed(learner, list(frames(normal(32, 7), reservoir_share=0.5)))
    assert len(learner.reservoir)
    feed(learner, list(frames(normal(256, 8), first=32, reservoir_share=0.0)), 33)
    assert len(learner.reservoir) == 0


def test_every_bar_is_counted() -> None:
    learner = Learner.start(SPEC, OPEN)
    feed(learner, list(frames(normal(320, 7))))
    assert sum(learner.counts[f"seen.{bar.name.lower()}"] for bar in Bar) == 320
