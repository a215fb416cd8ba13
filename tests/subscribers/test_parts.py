"""`gaussline parts`, killed again and again: exactly one verdict a part, and the one that the definition says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from gaussline.worker.broker.client import time_us
from gaussline.worker.broker.verdicts import PartVerdicts, Verdicts, trim_parts
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.engine.part_book import PartRule
from gaussline.worker.engine.part_judge import PartJudge
from gaussline.worker.errors import BrokerError
from tests.broker.way import Way
from tests.commands.published import publish
from tests.subscribers.part_oracle import decided, expected
from tests.support.cli import Cli
from tests.support.waiting import eventually

PASS, FAIL, NOT_JUDGED = Decision.PASS, Decision.FAIL, Decision.NOT_JUDGED
RULE = PartRule({"cam1": 1, "cam2": 1}, 0, 300)


@pytest.fixture
def cli(way: Way) -> Iterator[Cli]:
    """The command line of the same line."""
    line = Cli(f"unix://{way.client.connection_pool.connection_kwargs['path']}", way.line)
    yield line
    line.close()


def answers(way: Way) -> list[tuple[str, dict[str, Any]]]:
    return PartVerdicts(way.client, way.line).read("0-0", count=10_000)


def test_exactly_one_verdict_a_part_under_kill_9(way: Way, cli: Cli) -> None:
    chance = random.Random(20250918)
    parts = 0
    for _ in range(5):
        process = cli.start("parts", "--cameras", "cam1,cam2", "--deadline", "0.3")
        goal = len(answers(way)) + 1

        def more(least: int = goal) -> bool:
            return len(answers(way)) >= least

        for _ in range(30):
            part = f"P-{parts}"
            parts += 1
            for camera in chance.sample(["cam1", "cam2"], chance.choice([1, 2, 2, 2])):
                publish(way, chance.choice([PASS, PASS, PASS, FAIL, NOT_JUDGED]), camera=camera, part=part)
            if chance.random() < 0.1:  # of a part that may be decided by now
                publish(way, FAIL, camera="cam1", part=f"P-{chance.randrange(parts)}")
        eventually(more, what="a decision")
        process.kill()
        process.wait()
    cli.start("parts", "--cameras", "cam1,cam2", "--deadline", "0.3")
    eventually(lambda: len(answers(way)) >= parts, what="the last part's deadline")
    entries = Verdicts(way.client, way.line).read("0-0", count=10_000)
    assert decided(answers(way)) == expected(entries, RULE.cameras, 0, RULE.deadline_ms)
    assert len({verdict["id"] for _, verdict in answers(way)}) == parts
    state = way.client.hgetall(way.keys.part_state)
    assert sum(int(state.get(name, 0)) for name in (b"pass", b"fail", b"not_judged")) == parts
    assert int(state.get(b"late", 0)) == way.client.xlen(way.keys.parts_late)
    assert way.client.hlen(way.keys.parts_open) == 0
    assert Verdicts(way.client, way.line).subscribers()["parts"] == Verdicts(way.client, way.line).last_id()


def test_a_part_without_its_second_frame_is_decided_at_its_deadline_and_a_late_one_is_reported(way: Way) -> None:
    told: list[str] = []
    judge = PartJudge(way.client, way.line, RULE, on_turn=lambda done, late: told.extend(one.frame.id for one in late))
    publish(way, PASS, camera="cam1", part="A")
    eventually(lambda: judge.step(0.05) == 0 and answers(way), what="the deadline")
    publish(way, FAIL, camera="cam2", part="A")
    assert judge.step(0.05) == 1
    ((_, answer),) = answers(way)
    assert (answer["decision"], answer["reason"], answer["missing"]) == ("not_judged", "missing", ["cam2"])
    assert told == ["cam2:1:0"]
    ((_, late),) = way.client.xrange(way.keys.parts_late)
    assert (late[b"part"], late[b"decision"]) == (b"A", b"fail")


def test_a_judge_that_was_away_counts_what_was_in_time(way: Way) -> None:
    publish(way, PASS, camera="cam1", part="A")
    publish(way, PASS, camera="cam2", part="A")
    last_ms = int(Verdicts(way.client, way.line).last_id().split("-")[0])
    eventually(lambda: time_us(way.client) > 1000 * (last_ms + 400), what="the deadline")
    PartJudge(way.client, way.line, RULE).step()
    assert [answer["decision"] for _, answer in answers(way)] == ["pass"]


def test_two_judges_double_nothing(way: Way) -> None:
    one, two = PartJudge(way.client, way.line, RULE), PartJudge(way.client, way.line, RULE)
    for number in range(6):
        publish(way, PASS, camera="cam1", part=f"P-{number}")
        publish(way, PASS, camera="cam2", part=f"P-{number}")
        (one if number % 2 else two).step()
        (two if number % 2 else one).step()
    publish(way, PASS, camera="cam1", part="P-6")
    one.step()
    publish(way, PASS, camera="cam2", part="P-6")
    two.step()
    one.step()  # its own book still has the part open
    for judge in (one, two, one, two):
        judge.step()
    assert [answer["part"] for _, answer in answers(way)] == [f"P-{number}" for number in range(7)]
    assert not way.client.exists(way.keys.parts_late), "and takes nothing for late that it read twice"


def test_a_judge_that_could_not_register_does_so_before_it_reads_on(way: Way) -> None:
    """Or the verdicts that it has not read would be trimmed under it."""
    publish(way, PASS, camera="cam1", part="A")
    judge = PartJudge(way.client, way.line, RULE)
    way.client.set(way.keys.subscribers, "no hash")
    with pytest.raises(BrokerError):
        judge.step()
    way.client.delete(way.keys.subscribers)
    judge.step()
    assert list(Verdicts(way.client, way.line).subscribers()) == ["parts"]


def test_a_judge_whose_place_was_forgotten_takes_it_again_and_decides_everything_once(way: Way) -> None:
    """A power cut may take the registration and leave the rest: verdicts would no longer be kept for it."""
    judge = PartJudge(way.client, way.line, RULE)
    judge.step()
    way.client.delete(way.keys.subscribers)
    publish(way, PASS, camera="cam1", part="A")
    publish(way, PASS, camera="cam2", part="A")
    judge.step()
    judge.step()
    assert list(Verdicts(way.client, way.line).subscribers()) == ["parts"]
    assert [answer["part"] for _, answer in answers(way)] == ["A"]


def test_part_verdicts_have_subscribers_and_are_trimmed(way: Way, cli: Cli) -> None:
    judge = PartJudge(way.client, way.line, RULE)
    publish(way, PASS, camera="cam1", part="A")
    publish(way, FAIL, camera="cam2", part="A")
    judge.step()
    PartVerdicts(way.client, way.line).register("mes")
    assert trim_parts(way.client, way.line, min_age_s=0.0, max_bytes=10**6) == 0, "the subscriber has not read it"
    read = cli("verdicts", "--parts", "--json", "--group", "mes").stdout
    assert json.loads(read)["decision"] == "fail"
    assert "cam2:1:0=fail" in cli("verdicts", "--parts").stdout
    eventually(lambda: trim_parts(way.client, way.line, min_age_s=0.0, max_bytes=10**6) == 1, what="the trim")


def test_settings_of_parts_that_say_nothing_are_refused(cli: Cli) -> None:
    assert "nothing is expected" in cli("parts", code=2).stderr
    assert "no camera, or camera=frames" in cli("parts", "--cameras", "a b", code=2).stderr
    assert "between 1 and 256" in cli("parts", "--cameras", "cam1=0", code=2).stderr
