"""The report in a real headless browser: it opens alone, without a script, whole, without a complaint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from gaussline.worker.gaussian.combination import Rule
from gaussline.worker.learning import plots
from gaussline.worker.learning.assessment import Assessor, Evaluation, EvaluationOptions
from gaussline.worker.learning.category import Extraction
from gaussline.worker.learning.controls import Extra
from gaussline.worker.learning.fit import FitOptions
from gaussline.worker.learning.pipeline import BackboneOptions
from gaussline.worker.learning.report import html_report
from tests.support.browser import Browser
from tests.support.skips import needs_program, program

NAMES = ("plates", "odd <b>&\"'name")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Two categories, one of them with a name that must be escaped and with a copy across the split."""
    root = tmp_path_factory.mktemp("lines")
    for seed, name in enumerate(NAMES):
        write_folder(SyntheticParts(seed, size=64), root / name, good=24, defects=1)
    first = sorted((root / NAMES[1] / "good").glob("*.png"))
    for number, path in enumerate(first[:8]):
        (root / NAMES[1] / "good" / f"copy{number}.png").write_bytes(path.read_bytes())
    (root / NAMES[0] / "good" / "broken.png").write_bytes(b"no image")
    options = BackboneOptions(
        "squeezenet1_1",
        random_seed=1,
        levels=("features.1", "features.4"),
        input_size=64,
        device="cpu",
        memory_format="channels_last",
        batch_size=4,
    )
    ask = EvaluationOptions(
        fit=FitOptions(rule=Rule.SUM),
        seeds=(0, 1),
        draws=40,
        examples=True,
        skip_bad=True,
        extra=frozenset({Extra.COMBINATIONS, Extra.SIGMA}),
    )
    return Assessor(Extraction(options), None, ask).assess([root / name for name in NAMES])


@pytest.fixture(scope="module")
def page(result: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_report(result), "utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(program("chromium", "chromium"), tmp_path_factory.mktemp("profile")) as running:
        yield running


def test_the_text_needs_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "<script" not in text
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.search(r"url\(|@import", text)
    assert "default-src 'none'" in text
    assert NAMES[1] not in text  # escaped wherever it stands
    assert "odd &lt;b&gt;&amp;" in text


def test_the_result_tells_what_the_report_shows(result: Evaluation) -> None:
    told = result.to_dict()
    assert [one["name"] for one in told["categories"]] == list(NAMES)
    assert set(told["categories"][0]["tables"]) == {"levels", "defects", "rates", "combinations", "sigma", "pixels"}
    assert {"levels", "combinations", "sigma", "pixels"} <= set(told["means"])
    assert [one["file"].rpartition("/")[2] for one in told["categories"][0]["skipped"]] == ["broken.png"]
    assert any("leak: up to" in text for text in told["categories"][1]["warnings"])
    assert any("random weights" in text for text in told["categories"][0]["warnings"])


@needs_program("chromium", "chromium")
def test_it_opens_in_a_real_browser_whole_and_without_complaint(page: Path, browser: Browser, tmp_path: Path) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.complaints == []
    assert {url.partition(":")[0] for url in browser.requests} == {"file", "data"}
    assert [url for url in browser.requests if url.startswith("file:")] == [page.as_uri()]
    # Four groups of four images and their maps, for both categories.
    widths = browser.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    assert widths == [64] * (2 * 2 * 16)
    assert browser.evaluate("document.querySelectorAll('article').length") == 2
    assert browser.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)") == [
        *NAMES,
        "How to read this",
    ]
    assert browser.evaluate("document.querySelectorAll('figure.plot svg').length") == 8
    assert browser.evaluate("document.querySelectorAll('.bar, .curve, .dot').length") > 30
    heights = browser.evaluate("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)")
    assert min(heights) > 80
    titles = browser.evaluate(
        "[...document.querySelectorAll('article:first-of-type section.table h3')].map(h => h.textContent)"
    )
    assert titles == [
        "Every level, and levels combined",
        "Every defect type",
        "Stated and realised false-positive rates",
        "Combinations of levels",
        "The published threshold",
        "Where the defects are",
    ]
    assert "leak: up to" in browser.evaluate("document.getElementById('warnings').textContent")
    assert browser.evaluate("document.querySelector('#overview a').hash") == "#category-1"
    identifiers = browser.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(identifiers) == len(set(identifiers))
    browser.screenshot(tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as shot:
        assert shot.width == 1200
        assert shot.height > 2000
        colours = np.asarray(shot.convert("RGB")).reshape(-1, 3)
    for colour in ((43, 123, 186), (210, 73, 42)):  # normal and defective are drawn, not left black
        assert (np.abs(colours.astype(int) - colour).max(axis=1) < 12).sum() > 500


@needs_program("chromium", "chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_small_screen_need_not_be_scrolled_sideways(page: Path, browser: Browser, dark: bool) -> None:
    browser.open(page, width=390, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    paper = "rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == paper


@needs_program("chromium", "chromium")
def test_it_can_be_printed(page: Path, browser: Browser) -> None:
    browser.open(page, dark=True)
    printed = browser.print_pdf()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") + printed.count(b"/Type /Page/") >= 3


# --- plots -----------------------------------------------------------------------------------------------------------
def test_a_histogram_holds_every_image() -> None:
    source = plots.histogram(np.arange(50.0), np.array([1e6, 2.0, 3.0]), "a <score>")
    assert "a &lt;score&gt;" in source
    heights = [float(h) for h in re.findall(r'class="bar defective".*?height="([\d.]+)"', source)]
    full = [float(h) for h in re.findall(r'class="bar normal".*?height="([\d.]+)"', source)]
    assert sum(heights) == pytest.approx(sum(full), rel=0.02)  # both are shares of their own kind


def test_scores_that_are_all_the_same_can_be_drawn() -> None:
    for source in (
        plots.histogram(np.ones(3), np.ones(3), "score"),
        plots.roc([("first", "x", np.ones(3), np.ones(3))]),
        plots.intervals([("a", 1.0, 1.0, 1.0)], "AUROC"),
        plots.contributions(["a"], np.zeros((2, 1)), np.zeros((2, 1))),
    ):
        assert source.startswith("<svg")
        assert "nan" not in source
        assert "inf" not in source


def test_a_perfect_curve_has_its_corner() -> None:
    source = plots.roc([("first", "x", np.arange(5.0), np.arange(10.0, 15.0))])
    points = re.findall(r'points="([^"]+)"', source)[0].split()
    assert len(points) == 3
