from __future__ import annotations

import json

from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.contract.verdict import Decision
from tests.broker.way import Way
from tests.commands.published import publish
from tests.support.cli import Cli


def test_feedback_goes_to_its_stream(cli: Cli, way: Way) -> None:
    publish(way, Decision.FAIL, Decision.PASS)
    said = cli("feedback", "cam1:1:0", "good", "--by", "ada", "--note", "dust").stdout
    assert said.strip() == "cam1:1:0 is good, says ada"
    told = json.loads(cli("feedback", "cam1:1:1", "bad", "--by", "bo", "--json").stdout)
    read = FeedbackLog(way.client, way.line).read()
    assert [entry.feedback and entry.feedback.to_fields() for entry in read] == [
        {"v": 1, "id": "cam1:1:0", "label": "good", "by": "ada", "note": "dust"},
        {key: value for key, value in told.items() if key != "entry"},
    ]
    assert told["entry"] == read[1].id


def test_mistakes_are_plain_and_write_nothing(cli: Cli, way: Way) -> None:
    publish(way, Decision.FAIL)
    before = way.dump()
    assert "the last sequence of epoch 1 is 0" in cli("feedback", "cam1:1:7", "good", code=1).stderr
    assert "is no frame id" in cli("feedback", "cam1", "good", code=1).stderr
    assert "perhaps" in cli("feedback", "cam1:1:0", "perhaps", code=2).stderr
    assert "one line" in cli("feedback", "cam1:1:0", "good", "--note", "a\nb", code=1).stderr
    assert way.dump() == before
