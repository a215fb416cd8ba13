"""A roll-out judge that dies between two steps, that is not alone, whose clock jumps, and whose trials people end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gaussline.worker.broker.client import time_us
from gaussline.worker.broker.seal import Seal, new_keys, read_private_key
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.trial import CANARY, SHADOW, Trial
from gaussline.worker.errors import BrokerUnavailable
from gaussline.worker.learning import trial_judge
from gaussline.worker.learning.trial_judge import TrialJudge
from gaussline.worker.learning.trial_record import State, read_trials
from tests.rollout.conftest import Line

GOOD = {(False, False): 950, (True, True): 49, (True, False): 1}
BAD = {(False, False): 850, (True, True): 50, (False, True): 100}


def states(line: Line) -> list[tuple[State, str]]:
    return [(each.state, each.why) for each in read_trials(line.client, line.name, "default")]


def dies_before_it_moves(judge: TrialJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis goes away when the channel is to be emptied; what the judge found stands already."""

    def away(*arguments: Any, **more: Any) -> None:
        raise BrokerUnavailable("Redis cannot be reached")

    with monkeypatch.context() as patched:
        patched.setattr(judge._registry, "remove", away)
        with pytest.raises(BrokerUnavailable):
            judge.step()


@pytest.mark.parametrize("same", [True, False], ids=["the judge goes on", "another begins"])
def test_a_bad_canary_goes_though_its_judge_was_interrupted(
    line: Line, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    line.begin(for_s=3600.0)
    line.verdicts(BAD)
    judge = TrialJudge(line.client, line.name)
    dies_before_it_moves(judge, monkeypatch)
    assert line.pointer(CANARY) == 2
    (ruling,) = (judge if same else TrialJudge(line.client, line.name)).step()
    assert (ruling.record.state, line.pointer(CANARY)) == (State.ABORTED, None)
    ((state, why),) = states(line)
    assert state is State.ABORTED
    assert "extra_fails" in why


def test_the_report_of_a_promotion_outlives_its_judge(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.begin()
    line.verdicts(GOOD)
    dies_before_it_moves(TrialJudge(line.client, line.name), monkeypatch)
    assert (line.pointer(), line.pointer(CANARY)) == (2, 2)
    TrialJudge(line.client, line.name).step()
    (record,) = read_trials(line.client, line.name, "default")
    assert (record.state, record.counts.pairs.frames, record.against_version) == (State.PROMOTED, 1000, 1)
    assert line.pointer(CANARY) is None


@pytest.mark.parametrize("running", [True, False], ids=["judge runs", "judge begins later"])
def test_a_trial_that_a_person_ends_does_not_run_for_ever(line: Line, running: bool) -> None:
    line.begin(for_s=3600.0)
    judge = TrialJudge(line.client, line.name)
    judge.step()
    line.registry.remove("default", CANARY, by="bob", note="wrong lamp")
    (ruling,) = (judge if running else TrialJudge(line.client, line.name)).step()
    assert (ruling.record.state, ruling.record.why) == (State.REPLACED, "stopped by bob: wrong lamp")
    line.begin(for_s=3600.0)
    judge.step()
    line.begin(3, for_s=3600.0)
    (ruling,) = judge.step()
    assert ruling.record.why == "replaced by version 3 by ada"
    assert [state for state, _ in states(line)] == [State.REPLACED, State.REPLACED, State.RUNNING]
    assert judge.step() == []


def test_of_two_judges_the_slower_one_writes_nothing_over(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.begin(for_s=3600.0)
    slow = TrialJudge(line.client, line.name)
    slow.step()
    seen = line.registry.pointers()
    line.verdicts(BAD)
    monkeypatch.setattr(slow._registry, "pointers", lambda: seen)
    monkeypatch.setattr(slow, "_count", lambda record: True)  # it has not read them yet
    TrialJudge(line.client, line.name).step()
    before = states(line)
    assert slow.step() == []
    assert states(line) == before
    assert before[0][0] is State.ABORTED


def test_each_channel_has_its_revisions_and_no_running_trial_is_forgotten_for_them(line: Line) -> None:
    judge = TrialJudge(line.client, line.name)
    for _ in range(101):
        line.begin(for_s=3600.0)
        judge.step()
    line.begin(3, channel=SHADOW, for_s=3600.0)
    judge.step()
    running = [each for each in read_trials(line.client, line.name, "default") if each.state is State.RUNNING]
    assert {each.channel for each in running} == {CANARY, SHADOW}


def test_a_trial_that_began_before_the_clock_went_back_is_counted(line: Line) -> None:
    ahead = to_text(time_us(line.client) + 30 * 86_400_000_000)
    line.begin(for_s=3600.0)
    pointer = json.loads(line.client.hget(line.keys.pointers, "default/canary"))
    line.client.hset(line.keys.pointers, "default/canary", json.dumps(pointer | {"moved_at": ahead}))
    judge = TrialJudge(line.client, line.name)
    judge.step()
    line.verdicts(BAD)
    assert [ruling.record.state for ruling in judge.step()] == [State.ABORTED]


def test_a_promotion_is_not_asked_for_again_and_again(line: Line) -> None:
    """Asked each second, a version beyond its limit would be promoted at the first lucky moment."""
    trial = Trial(0.0, "extra_fails > 2%", 100)
    line.registry.promote("default", 2, by="ada", channel=SHADOW, trial=trial)
    judge = TrialJudge(line.client, line.name)
    line.verdicts({(False, False): 120}, channel=SHADOW)
    judge.step()
    line.verdicts({(False, False): 40}, channel=SHADOW)
    judge.step()
    assert line.pointer() == 1, "160 frames of one kind were enough, had they been asked for alone"
    line.verdicts({(False, False): 140}, channel=SHADOW)
    judge.step()
    assert line.pointer() == 2


def test_a_version_that_cannot_be_promoted_is_held_and_the_judge_goes_on(line: Line) -> None:
    line.begin()
    line.verdicts(GOOD)
    line.client.delete(line.keys.artefact(line.ref(2, CANARY).digest))  # by hand: no gc does that
    judge = TrialJudge(line.client, line.name)
    (ruling,) = judge.step()
    assert ruling.record.state is State.HELD
    assert "its artefact is gone" in ruling.report["why"]
    assert judge.step() == []


def test_a_version_that_nobody_signed_is_not_promoted_where_there_are_keys(line: Line, tmp_path: Path) -> None:
    line.begin()
    line.verdicts(GOOD)
    new_keys(tmp_path / "a.key", tmp_path / "a.pub")
    seal = Seal(read_private_key(tmp_path / "a.key"))
    judge = TrialJudge(line.client, line.name, seal=seal)
    (ruling,) = judge.step()
    assert ruling.record.state is State.HELD
    assert "is not signed" in ruling.report["why"]
    assert (line.pointer(), line.pointer(CANARY)) == (1, 2)
    line.verdicts({(False, True): 3000})
    assert [ruling.record.state for ruling in judge.step()] == [State.ABORTED], "it is taken away all the same"


@pytest.mark.parametrize("hours", [25, -25])
def test_a_clock_that_jumps_makes_no_trial_longer_or_shorter(
    line: Line, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    line.begin(for_s=3600.0)
    line.verdicts(GOOD)
    judge = TrialJudge(line.client, line.name)
    judge.step()
    jump_us = hours * 3_600_000_000
    monkeypatch.setattr(trial_judge, "time_us", lambda client: time_us(client) + jump_us)
    assert judge.step() == []
    (record,) = read_trials(line.client, line.name, "default")
    assert (record.state, line.pointer(), record.counts.pairs.frames) == (State.RUNNING, 1, 1000)
    assert abs(record.started_us - time_us(line.client) - jump_us) < 60e6
