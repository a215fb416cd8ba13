"""The roll-out judge on a real Redis: a good version is promoted, a bad one rolled back, an unclear one held."""

from __future__ import annotations

import json

import pytest

from gaussline.worker.broker.registry import Move
from gaussline.worker.contract.trial import CANARY, SHADOW
from gaussline.worker.learning.trial_judge import TrialJudge, report
from gaussline.worker.learning.trial_page import render
from gaussline.worker.learning.trial_record import State, TrialRecord, read_trials
from tests.rollout.conftest import Line

GOOD = {(False, False): 950, (True, True): 49, (True, False): 1}
BAD = {(False, False): 850, (True, True): 50, (False, True): 100}
BLIND = {(False, False): 950, (True, False): 50}


def judged(line: Line) -> list[State]:
    return [ruling.record.state for ruling in TrialJudge(line.client, line.name).step()]


def last_move(line: Line) -> Move:
    return line.registry.history("default")[-1]


@pytest.mark.parametrize("channel", [CANARY, SHADOW])
def test_a_good_version_is_promoted(line: Line, channel: str) -> None:
    line.begin(channel=channel)
    line.verdicts(GOOD, channel=channel)
    assert judged(line) == [State.PROMOTED]
    assert line.pointer() == 2
    assert line.pointer(channel) is None
    (record,) = read_trials(line.client, line.name, "default")
    assert (record.state, record.counts.pairs.frames, record.against_version) == (State.PROMOTED, 1000, 1)
    promotion = line.registry.history("default")[-2]
    assert (promotion.before, promotion.after, promotion.by) == (1, 2, "roll-out judge")
    assert "extra_fails" in promotion.note
    assert judged(line) == [], "what has ended is left alone"


@pytest.mark.parametrize(("cells", "rule"), [(BAD, "extra_fails"), (BLIND, "lost_fails")])
def test_a_bad_version_is_rolled_back_before_its_time_is_over(
    line: Line, cells: dict[tuple[bool, bool], int], rule: str
) -> None:
    line.begin(for_s=3600.0)
    line.verdicts(cells)
    assert judged(line) == [State.ABORTED]
    assert (line.pointer(), line.pointer(CANARY)) == (1, None)
    assert (last_move(line).before, last_move(line).after) == (2, None)
    assert rule in last_move(line).note


def test_nothing_is_concluded_before_its_time(line: Line) -> None:
    line.begin(for_s=3600.0)
    line.verdicts(GOOD)
    assert judged(line) == []
    assert (line.pointer(), line.pointer(CANARY)) == (1, 2)
    (record,) = read_trials(line.client, line.name, "default")
    assert record.state is State.RUNNING


def test_nothing_is_concluded_from_few_frames(line: Line) -> None:
    line.begin(frames=500)
    line.verdicts({(False, False): 60, (False, True): 40})
    assert judged(line) == []
    assert line.pointer(CANARY) == 2


def test_a_judge_that_dies_goes_on_where_it_saved_and_two_count_the_same(line: Line) -> None:
    line.begin(for_s=3600.0)
    line.verdicts(GOOD)
    TrialJudge(line.client, line.name).step()
    line.verdicts(GOOD)
    one, two = TrialJudge(line.client, line.name), TrialJudge(line.client, line.name)
    one.step()
    first = line.client.hgetall(line.keys.trials("default"))
    two.step()
    assert line.client.hgetall(line.keys.trials("default")) == first
    (record,) = read_trials(line.client, line.name, "default")
    assert record.counts.pairs.frames == 2000
    assert TrialRecord.from_json(record.to_json()) == record


def test_verdicts_of_before_the_trial_and_of_others_do_not_count(line: Line) -> None:
    line.verdicts(BAD)
    line.verdicts(BAD, new=3)
    line.begin(for_s=3600.0)
    line.verdicts(BAD, new=3)
    line.verdicts(GOOD, old=3)
    assert judged(line) == []
    (record,) = read_trials(line.client, line.name, "default")
    assert record.counts.pairs.frames == 0


def test_another_stable_version_begins_the_count_anew(line: Line) -> None:
    line.begin(for_s=3600.0)
    line.verdicts(GOOD)
    judge = TrialJudge(line.client, line.name)
    judge.step()
    line.registry.promote("default", 3, by="bob")
    line.verdicts(GOOD, old=3)
    judge.step()
    (record,) = read_trials(line.client, line.name, "default")
    assert (record.against_version, record.counts.pairs.frames, record.restarts) == (3, 1000, 1)


def test_a_person_who_promotes_the_version_ends_its_trial(line: Line) -> None:
    line.begin(for_s=3600.0)
    line.registry.promote("default", 2, by="bob")
    assert judged(line) == [State.PROMOTED]
    assert line.pointer(CANARY) is None


def test_a_pinned_model_is_not_promoted_and_a_person_is_told(line: Line) -> None:
    line.registry.pin("default", by="eve", note="audit")
    line.begin()
    line.verdicts(GOOD)
    judge = TrialJudge(line.client, line.name)
    (ruling,) = judge.step()
    assert ruling.record.state is State.HELD
    assert "pinned to version 1 by eve" in ruling.report["why"]
    assert (line.pointer(), line.pointer(CANARY)) == (1, 2)
    assert judge.step() == [], "it is said once"
    line.verdicts({(False, True): 3000})
    assert [ruling.record.state for ruling in judge.step()] == [State.ABORTED], "a held trial is still watched"


def test_a_trial_that_is_to_be_held_is_not_promoted(line: Line) -> None:
    line.begin(promote=False)
    line.verdicts(GOOD)
    assert judged(line) == [State.HELD]
    assert (line.pointer(), line.pointer(CANARY)) == (1, 2)


def test_a_version_that_a_living_worker_cannot_load_is_rolled_back(line: Line) -> None:
    line.begin(for_s=3600.0)
    said = json.dumps({"refused": {"default/canary": "version 2: another backbone"}})
    line.client.hset(line.keys.workers, "w1", said)
    assert judged(line) == [], "a dead worker's word does not count"
    line.client.set(line.keys.worker("w1"), "1", ex=60)
    assert judged(line) == [State.ABORTED]
    assert "worker w1 cannot use it" in last_move(line).note


def test_rules_that_cannot_be_read_hold_the_trial(line: Line) -> None:
    line.begin(abort_if="nonsense > 3")
    line.verdicts(GOOD)
    assert judged(line) == [State.HELD]
    assert (line.pointer(), line.pointer(CANARY)) == (1, 2)


def test_the_report_reads_as_json_and_as_a_page_that_needs_nothing_else(line: Line) -> None:
    line.begin()
    line.verdicts(BAD)
    (ruling,) = TrialJudge(line.client, line.name).step()
    read = json.loads(json.dumps(report(ruling.record)))
    assert (read["state"], read["frames"], read["failed_by_new_only"]) == ("aborted", 1000, 100)
    (broken,) = [rule for rule in read["rules"] if rule["broken"]]
    assert broken["low"] > 0.02
    assert read["p99_new_s"] == pytest.approx(0.02, rel=0.1)
    read["why"] = "<script>alert(1)</script>"
    page = render(read)
    assert "<script" not in page
    assert "http" not in page
    assert "aborted" in page


def test_trials_of_long_ago_are_forgotten(line: Line) -> None:
    for _ in range(105):
        line.begin(for_s=3600.0)
        TrialJudge(line.client, line.name).step()
    assert line.client.hlen(line.keys.trials("default")) == 100
