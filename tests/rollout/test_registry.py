"""Pointers with trials, pins and the collecting of versions, on a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.retention import Collector, Keep
from gaussline.worker.contract.trial import CANARY, STABLE, Selection, Trial
from gaussline.worker.errors import Conflict, GausslineError, NotFound, Pinned
from tests.rollout.conftest import Line


def test_a_trial_stands_in_its_pointer(line: Line) -> None:
    selection, trial = Selection(0.25, ("cam7",)), Trial(60.0, "extra_fails > 1%", 10, promote=False)
    line.registry.promote("default", 2, by="ada", channel=CANARY, selection=selection, trial=trial)
    found = line.registry.pointer("default", CANARY)
    assert found is not None
    assert (found.version, found.selection, found.trial) == (2, selection, trial)
    stable = line.registry.pointer("default")
    assert stable is not None
    assert (stable.selection, stable.trial) == (None, None)
    assert line.registry.remove("default", CANARY, by="bob", note="enough").version == 2
    assert line.registry.pointer("default", CANARY) is None
    with pytest.raises(NotFound):
        line.registry.remove("default", CANARY, by="bob")
    moves = [(move.channel, move.before, move.after, move.by) for move in line.registry.history("default")]
    assert moves == [("stable", None, 1, "ada"), ("canary", None, 2, "ada"), ("canary", 2, None, "bob")]


def race(*calls: Callable[[], object]) -> list[str]:
    """Names of what the calls raised, '' where nothing; begun at the same moment."""
    gate = threading.Barrier(len(calls))
    said = [""] * len(calls)

    def run(place: int, call: Callable[[], object]) -> None:
        gate.wait()
        try:
            call()
        except GausslineError as error:
            said[place] = type(error).__name__

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_of_two_operators_at_once_one_wins_and_the_other_is_told(line: Line) -> None:
    seen = line.registry.pointer("default")
    said = race(*(partial(line.registry.promote, "default", n, by=f"p{n}", seen=seen) for n in (2, 3)))
    assert sorted(said) == ["", "Conflict"]
    assert line.pointer() == (2 if said[0] == "" else 3)
    with pytest.raises(Conflict, match="moved by somebody else"):
        line.registry.remove("default", STABLE, by="x", seen=seen)


def test_a_promotion_that_somebody_undoes_at_once_is_told_all_the_same(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = line.registry._shift

    def undone(*arguments: Any) -> int:
        revision = shift(*arguments)
        monkeypatch.undo()
        line.registry.remove("default", CANARY, by="judge")
        return revision

    monkeypatch.setattr(line.registry, "_shift", undone)
    made = line.registry.promote("default", 2, by="ada", channel=CANARY)
    assert (made.version, made.channel, made.revision, made.by) == (2, CANARY, 1, "ada")
    assert line.registry.pointer("default", CANARY) is None


def test_a_pinned_model_does_not_move_until_it_is_unpinned(line: Line) -> None:
    line.registry.promote("default", 2, by="ada")
    line.registry.pin("default", by="eve", note="audit")
    for move in (
        partial(line.registry.promote, "default", 3, by="bob"),
        partial(line.registry.rollback, "default", by="bob"),
        partial(line.registry.remove, "default", STABLE, by="bob"),
    ):
        with pytest.raises(Pinned, match="pinned to version 2 by eve"):
            move()
    line.registry.promote("default", 3, by="ada", channel=CANARY)
    assert line.registry.unpin("default").note == "audit"
    line.registry.promote("default", 3, by="ada")
    assert line.pointer() == 3
    with pytest.raises(NotFound):
        line.registry.unpin("default")
    with pytest.raises(NotFound):
        line.registry.pin("nothing", by="eve")


def test_what_is_needed_is_never_collected(line: Line) -> None:
    line.versions(7)  # 4 … 10; 4, 5 and 6 have the bytes of 1, 2 and 3
    line.registry.promote("default", 7, by="ada")
    line.registry.promote("default", 8, by="ada")
    line.registry.promote("default", 9, by="ada", channel=CANARY)
    collector = Collector(line.client, line.name, Keep(newest=0, max_age_s=0.0))
    planned = [found.version.number for found in collector.plan()]
    assert planned == [1, 2, 3, 4, 5, 6, 10], "8 judges, 7 is where rollback leads, 9 is on trial"
    for found in collector.plan():
        collector.collect(found)
    kept = {
        number: bool(line.client.exists(line.keys.artefact(line.ref(number, STABLE).digest))) for number in range(1, 11)
    }
    assert [number for number, there in kept.items() if there] == [7, 8, 9]
    assert Registry(line.client, line.name).fetch(line.ref(7, STABLE).digest), "and no chunk of theirs went"
    line.registry.rollback("default", by="ada")
    assert line.pointer() == 7
    with pytest.raises(NotFound, match="was collected"):
        line.registry.promote("default", 1, by="ada")
    assert line.registry.version("default", 1).by == "ada", "the record stays"
    assert collector.plan() == []


def test_a_pinned_version_is_never_collected_and_a_race_is_lost_by_the_collector(line: Line) -> None:
    line.registry.pin("default", by="eve")
    collector = Collector(line.client, line.name, Keep(newest=0, max_age_s=0.0))
    planned = collector.plan()
    assert [found.version.number for found in planned] == [2, 3]
    line.registry.promote("default", 2, by="ada", channel=CANARY)  # between the plan and the deletion
    assert collector.collect(planned[0]) == 0
    assert collector.collect(planned[1]) > 0
    assert line.registry.fetch(line.ref(2, CANARY).digest)


def test_young_and_newest_versions_stay_unless_their_bytes_are_too_many(line: Line) -> None:
    assert Collector(line.client, line.name, Keep(newest=0, max_age_s=3600.0)).plan() == []
    assert Collector(line.client, line.name, Keep(newest=3, max_age_s=0.0)).plan() == []
    full = Collector(line.client, line.name, Keep(newest=3, max_age_s=3600.0, max_bytes=1)).plan()
    assert [found.version.number for found in full] == [2, 3]


def test_the_bytes_of_an_old_version_that_are_a_young_one_too_stay(line: Line) -> None:
    """A version that was exported and came back, or that stands under two names, has one artefact."""
    old = line.registry.fetch(line.ref(2, STABLE).digest)
    line.registry.publish("other", old, by="ada")
    line.registry.publish("other", b"another artefact", by="ada")
    line.registry.promote("other", 1, by="ada")
    line.registry.promote("other", 2, by="ada")
    again = line.registry.publish("default", line.registry.fetch(line.ref(3, STABLE).digest), by="ada")
    collector = Collector(line.client, line.name, Keep(newest=1, max_age_s=0.0))
    for found in collector.plan():
        collector.collect(found)
    assert line.registry.fetch(again.digest), "it is the newest"
    assert line.registry.rollback("other", by="ada").version == 1
    assert line.registry.fetch(line.ref(2, STABLE).digest), "it is where another model's rollback led"


def test_bytes_that_are_published_again_after_the_plan_are_not_collected(line: Line) -> None:
    collector = Collector(line.client, line.name, Keep(newest=0, max_age_s=0.0))
    planned = {found.version.number: found for found in collector.plan()}
    again = line.registry.publish("default", line.registry.fetch(line.ref(2, STABLE).digest), by="bob")
    assert collector.collect(planned[2]) == 0
    assert line.registry.fetch(again.digest)
    assert collector.collect(planned[3]) > 0


@pytest.mark.parametrize(
    "name", ["\udcff", "a\ud800b", 'x","revision":99,"y":"', "two\nlines", "x" * 100_000, "Zoë 工"]
)
def test_whatever_a_person_is_called_pointers_move_and_versions_are_collected(line: Line, name: str) -> None:
    """The shell hands over bytes that are no UTF-8 as halves of surrogate pairs."""
    line.registry.promote("default", 2, by=name, note=name)
    line.registry.promote("default", 3, by=name, channel=CANARY, note=name)
    line.registry.pin("default", by=name, note=name)
    line.registry.unpin("default")
    assert line.registry.remove("default", CANARY, by=name, note=name).version == 3
    assert line.registry.rollback("default", by=name).version == 1
    collector = Collector(line.client, line.name, Keep(newest=0, max_age_s=0.0))
    assert [collector.collect(found) > 0 for found in collector.plan()] == [True]
    for move in line.registry.history("default"):
        assert len(move.by) <= 128
        assert len(move.note) <= 2000
        assert (move.by + move.note).isprintable()
        assert (move.by + move.note).encode()


def test_a_pin_holds_the_version_that_it_names(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody promotes while somebody pins: one wins, and the other is told."""
    pointer = line.registry.pointer

    def late(*arguments: Any) -> Any:
        seen = pointer(*arguments)
        monkeypatch.undo()
        line.registry.promote("default", 2, by="bob")
        return seen

    monkeypatch.setattr(line.registry, "pointer", late)
    with pytest.raises(Conflict, match="moved by somebody else"):
        line.registry.pin("default", by="eve", note="audit")
    assert line.registry.pins() == {}
    assert line.registry.pin("default", by="eve").version == 2
