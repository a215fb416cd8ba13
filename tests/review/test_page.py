"""The review page in a real browser, and what its server refuses."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.contract.feedback import Feedback, Label
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import SettingsError
from gaussline.worker.review.frames import Kind, ReviewList
from gaussline.worker.review.server import BODY_BYTES, ReviewServer
from tests.review.conftest import ReviewLine
from tests.review.tab import Tab

PASS, FAIL = Decision.PASS, Decision.FAIL
HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture
def frames(line: ReviewLine) -> dict[str, str]:
    """One frame of each kind, by its kind."""
    return {
        "other": line.judged(PASS, 20.0),
        "near": line.judged(PASS, 95.0, part=HOSTILE),
        "suspect": line.judged(PASS, 30.0, camera="cam2", opinion=FAIL),
        "flagged": line.judged(FAIL, 250.0, heat_map=True),
        "bare": line.judged(FAIL, 120.0),
    }


@pytest.fixture
def page(server: EmbeddedRedis, line: ReviewLine, frames: dict[str, str]) -> Iterator[ReviewServer]:
    with ReviewServer(line.settings(server.url), line.client, by="ada", remake=False) as serving:
        yield serving


def ids(tab: Tab) -> list[str]:
    found: list[str] = tab.evaluate("[...document.querySelectorAll('article')].map(a => a.id)")
    return found


# --- in a browser ----------------------------------------------------------------------------------------------------
def test_a_person_sees_what_to_look_at_and_says_what_it_is(
    line: ReviewLine, page: ReviewServer, frames: dict[str, str], tab: Tab
) -> None:
    tab.requests.clear()
    tab.visit(page.url)
    assert ids(tab) == [frames[kind] for kind in ("bare", "flagged", "suspect", "near")]
    flagged = f"article[id='{frames['flagged']}']"
    tab.until(f'[...document.querySelectorAll("{flagged} img")].every(i => i.complete && i.naturalWidth > 0)')
    text = tab.text(flagged)
    for shown in ("plates version 7", "P-1", "250, 100", "0.0010", "features.3", "failed"):
        assert shown in text
    tab.until(f"document.querySelector(\"article[id='{frames['bare']}'] figure.none\")")  # its map was never made
    assert tab.evaluate("document.title") == f"Review · {line.line}", "what a camera says of a part is text"

    tab.evaluate("document.getElementById('by').value = ''")
    tab.write("#by", "Ada Müller")
    tab.write(f"{flagged} input[name=note]", "only dust")
    tab.click(f"{flagged} button.good")
    tab.until(f'document.querySelector("{flagged} .said").textContent.startsWith("good, says")')
    pressed = f'document.querySelector("{flagged} button.good").getAttribute("aria-pressed")'
    assert tab.evaluate(pressed) == "true"
    (entry,) = FeedbackLog(line.client, line.line).read()
    assert entry.feedback == Feedback(frames["flagged"], Label.GOOD, "Ada Müller", "only dust")

    tab.visit(page.url + "?show=suspect")
    assert ids(tab) == [frames["flagged"], frames["suspect"]], "feedback against its verdict makes a frame suspect"
    assert tab.evaluate(pressed) == "true"
    assert "good, says Ada Müller: only dust" in tab.text(flagged)
    assert tab.evaluate("document.getElementById('by').value") == "Ada Müller", "the browser remembers who"
    tab.click(f"{flagged} button.bad")
    tab.until(f'document.querySelector("{flagged} .said").textContent.startsWith("bad, says")')
    assert [each.feedback and each.feedback.label for each in FeedbackLog(line.client, line.line).read()] == [
        Label.GOOD,
        Label.BAD,
    ]
    assert {url.split("/")[2] for url in tab.requests} == {page.url.split("/")[2]}, "nothing comes from elsewhere"


def test_a_frame_that_is_gone_meanwhile_is_told_in_its_card(
    line: ReviewLine, page: ReviewServer, frames: dict[str, str], tab: Tab
) -> None:
    tab.visit(page.url + "?camera=cam2")
    assert ids(tab) == [frames["suspect"]]
    line.client.delete(line.keys.kept, line.keys.camera("cam2"))
    tab.click("button.bad")
    tab.until("document.querySelector('.said.wrong')")
    assert "has no camera cam2" in tab.text(".said")
    assert FeedbackLog(line.client, line.line).read() == []


def test_the_page_fits_a_small_screen(page: ReviewServer, tab: Tab) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    try:
        tab.visit(page.url)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")


# --- kinds, pages ----------------------------------------------------------------------------------------------------
def test_frames_are_sorted_by_reasons_to_look_at_them(
    server: EmbeddedRedis, line: ReviewLine, frames: dict[str, str]
) -> None:
    review = ReviewList(line.settings(server.url), line.client)
    whole = review.read()
    assert whole.counts == {Kind.FLAGGED: 2, Kind.NEAR: 1, Kind.SUSPECT: 1, Kind.OTHER: 1}
    assert (whole.total, whole.scanned, whole.cameras) == (4, 5, ("cam1", "cam2"))
    assert [frame.verdict.id for frame in review.read(Kind.OTHER).frames] == [frames["other"]]
    assert [frame.verdict.id for frame in review.read(camera="cam2").frames] == [frames["suspect"]]
    paged = [review.read(skip=skip, count=1).frames[0].verdict.id for skip in range(4)]
    assert paged == [frame.verdict.id for frame in whole.frames]
    assert ReviewList(line.settings(server.url), line.client, near=0.97).read().counts[Kind.NEAR] == 0
    # The version is not in the registry: a level's distance stands for what it gives.
    assert whole.frames[0].contributions == {"features.1": 40.0, "features.3": 80.0}


# --- the server ------------------------------------------------------------------------------------------------------
def ask(
    page: ReviewServer, method: str, path: str, body: str | None = None, **headers: str
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(page.url).netloc, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1"), dict(answer.getheaders())
    finally:
        connection.close()


def form(page: ReviewServer, frame: str, **changes: str) -> str:
    fields = {"token": page.token, "id": frame, "label": "bad", "by": "ada", "note": ""} | changes
    return urllib.parse.urlencode(fields)


def test_feedback_needs_the_pages_own_token_and_name(
    line: ReviewLine, page: ReviewServer, frames: dict[str, str]
) -> None:
    frame = frames["flagged"]
    before = line.dump()
    for wrong in ("", "x", page.token[:-1], "ä"):
        assert ask(page, "POST", "/feedback", form(page, frame, token=wrong))[0] == 403
    port = urllib.parse.urlsplit(page.url).port
    for stranger in ("evil.example", f"evil.example:{port}", "127.0.0.1"):
        assert ask(page, "POST", "/feedback", form(page, frame), Host=stranger)[0] == 403
        assert ask(page, "GET", "/", Host=stranger)[0] == 403
    for changes in ({"label": "perhaps"}, {"by": ""}, {"note": "a\nb"}, {"id": "../x"}):
        assert ask(page, "POST", "/feedback", form(page, frame, **changes))[0] == 400
    status, told, _ = ask(page, "POST", "/feedback", form(page, "cam1:1:99"), Accept="application/json")
    assert (status, json.loads(told)["error"].split(":")[0]) == (404, "no frame cam1")
    assert ask(page, "POST", "/feedback", "x" * (BODY_BYTES + 1))[0] == 400
    assert ask(page, "POST", "/feedback", "", Content_Length="9" * 5000)[0] == 400
    assert ask(page, "POST", "/elsewhere", form(page, frame))[0] == 404
    assert line.dump() == before
    assert ask(page, "GET", "/", Host=f"localhost:{port}")[0] == 200
    status, _, headers = ask(page, "POST", "/feedback", form(page, frame))  # a browser without scripts
    assert (status, headers["Location"]) == (303, "/")
    assert len(FeedbackLog(line.client, line.line).read()) == 1


def test_pages_hold_nothing_from_elsewhere(page: ReviewServer, frames: dict[str, str]) -> None:
    status, text, headers = ask(page, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http" not in text.replace(page.url, "")
    assert HOSTILE not in text
    for path, code in [
        ("/?show=odd", 400),
        ("/?skip=-1", 400),
        ("/?skip=9999999999", 400),
        ("/?camera=a%2Fb", 400),
        ("/frame/..%2F..%2Fetc", 400),
        ("ftp://[x/", 400),
        ("/frame/cam1:1:99", 404),
        ("/map/" + frames["bare"], 404),
        ("/nothing", 404),
        ("/?show=near&skip=50", 200),
    ]:
        assert ask(page, "GET", path)[0] == code, path
    status, picture, headers = ask(page, "GET", "/frame/" + frames["flagged"])
    assert (status, headers["Content-Type"], picture[:2]) == (200, "image/jpeg", "\xff\xd8")


def test_a_port_that_is_taken_is_said(server: EmbeddedRedis, line: ReviewLine, page: ReviewServer) -> None:
    port = urllib.parse.urlsplit(page.url).port
    assert port is not None
    with pytest.raises(SettingsError, match="--port"):
        ReviewServer(line.settings(server.url), line.client, port=port)


# --- as a file -------------------------------------------------------------------------------------------------------
def test_the_page_as_one_file(
    server: EmbeddedRedis, line: ReviewLine, frames: dict[str, str], tab: Tab, tmp_path: Path
) -> None:
    from gaussline.worker.commands.main import main

    file = tmp_path / "review.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAUSSLINE_LINE", line.line)
        patch.setenv("GAUSSLINE_REDIS_URL", server.url)
        with pytest.raises(SystemExit) as ended:
            main(["review", "--export", str(file), "--no-maps"])
    assert ended.value.code in (0, None)
    tab.visit(file.as_uri())
    assert ids(tab) == [frames[kind] for kind in ("bare", "flagged", "suspect", "near")]
    tab.until("[...document.images].every(i => i.complete)")
    assert tab.evaluate("[...document.images].filter(i => i.naturalWidth > 0).length") == 5
    assert tab.evaluate("document.querySelectorAll('button, script').length") == 0
    assert tab.complaints == []
