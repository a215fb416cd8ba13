"""The page as HTML: one file with its style and script inside, and no resource from anywhere else."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from urllib.parse import quote, urlencode

from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.feedback import NOTE_MAX_BYTES, Feedback, Label
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.review.frames import SCAN, Kind, ReviewFrame, ReviewPage

PER_PAGE = 24
NAMES = {
    Kind.FLAGGED: "Flagged",
    Kind.NEAR: "Near the threshold",
    Kind.SUSPECT: "Suspect",
    Kind.OTHER: "Passed",
}
TAGS = {Kind.FLAGGED: "failed", Kind.NEAR: "near", Kind.SUSPECT: "suspect", Kind.OTHER: "passed"}


@dataclass(frozen=True, slots=True)
class View:
    """What was asked for.

    Attributes:
        show: frames of one kind; None those of every kind but the unsuspicious.
        skip: frames before the page.
    """

    show: Kind | None = None
    camera: str | None = None
    skip: int = 0

    def link(self, **changes: object) -> str:
        """The address of another view."""
        fields = {"show": self.show, "camera": self.camera, "skip": self.skip} | changes
        asked = {name: str(value) for name, value in fields.items() if value}
        return "/?" + urlencode(asked) if asked else "/"


def render(
    line: str,
    page: ReviewPage,
    view: View,
    *,
    token: str,
    nonce: str,
    by: str = "",
) -> str:
    """The page as the server gives it."""
    cards = "".join(
        _card(frame, f"/frame/{quote(frame.verdict.id)}", f"/map/{quote(frame.verdict.id)}", _form(frame, token))
        for frame in page.frames
    )
    who = (
        '<label class="who" for="by">You are '
        f'<input id="by" name="by" value="{escape(by)}" maxlength="64" autocomplete="name"></label>'
    )
    script = Template(_text("script.html")).substitute(nonce=nonce)
    return _fill(line, page, view, nonce, cards, _tabs(page, view), who, _footer(page, view), script)


def render_static(
    line: str, page: ReviewPage, view: View, picture: Callable[[ReviewFrame], tuple[bytes | None, bytes | None]]
) -> str:
    """The page as one file for a mail or an archive: pictures inside, no buttons.

    Args:
        picture: a frame's JPEG and its heat map's, None where there is none.
    """
    cards = []
    for frame in page.frames:
        image, heat = (_inline(data) for data in picture(frame))
        cards.append(_card(frame, image, heat, ""))
    tabs = f'<div><a aria-current="page">{_name(view.show)}<b>{page.total}</b></a></div>'
    number = f"{len(page.frames)} of {page.total} frames"
    footer = f"<span>{number}; say what is right with <code>gaussline feedback</code></span>"
    return _fill(line, page, view, "static", "".join(cards), tabs, "", footer, "")


def said(feedback: Feedback) -> str:
    """The last word on a frame, for a person."""
    note = f": {feedback.note}" if feedback.note else ""
    return f"{feedback.label.value}, says {feedback.by}{note}"


def _fill(
    line: str, page: ReviewPage, view: View, nonce: str, cards: str, tabs: str, who: str, footer: str, script: str
) -> str:
    empty = ""
    if not page.frames:
        empty = f'<p class="empty">{"No kept frame yet." if not page.scanned else "Nothing here to look at."}</p>'
    random = any(frame.verdict.random_weights for frame in page.frames)
    warning = '<p class="warn">Random weights: these verdicts mean nothing.</p>' if random else ""
    return Template(_text("page.html")).substitute(
        line=escape(line),
        nonce=nonce,
        tabs=tabs,
        who=who,
        warning=warning,
        cards=cards,
        empty=empty,
        footer=footer,
        script=script,
    )


def _text(name: str) -> str:
    return (resources.files("gaussline.worker.review") / name).read_text("utf-8")


def _name(show: Kind | None) -> str:
    return "To look at" if show is None else NAMES[show]


def _tabs(page: ReviewPage, view: View) -> str:
    tabs, cameras = [], []
    for kind in (None, *Kind):
        number = page.scanned - page.counts[Kind.OTHER] if kind is None and view.camera is None else None
        count = page.counts[kind] if kind is not None else page.total if view.show is None else number
        current = ' aria-current="page"' if kind is view.show else ""
        shown = "" if count is None else f"<b>{count}</b>"
        tabs.append(f'<a href="{escape(view.link(show=kind, skip=0))}"{current}>{_name(kind)}{shown}</a>')
    if len(page.cameras) > 1:
        for camera in (None, *page.cameras):
            current = ' aria-current="page"' if camera == view.camera else ""
            cameras.append(
                f'<a href="{escape(view.link(camera=camera, skip=0))}"{current}>{escape(camera or "All cameras")}</a>'
            )
    return "".join(f"<div>{''.join(row)}</div>" for row in (tabs, cameras) if row)


def _footer(page: ReviewPage, view: View) -> str:
    parts = []
    if page.total:
        last = min(view.skip + len(page.frames), page.total)
        parts.append(f"<span>{view.skip + 1} to {last} of {page.total}</span>")
    if view.skip:
        parts.append(f'<a href="{escape(view.link(skip=max(0, view.skip - PER_PAGE)))}">Newer</a>')
    if view.skip + len(page.frames) < page.total:
        parts.append(f'<a href="{escape(view.link(skip=view.skip + PER_PAGE))}">Older</a>')
    seen = f"the newest {SCAN} kept frames" if page.scanned == SCAN else f"{page.scanned} kept frames"
    parts.append(f"<span>Of {seen}. Red adds to the score, blue takes from it.</span>")
    return "".join(parts)


def _card(frame: ReviewFrame, image: str, heat: str, form: str) -> str:
    verdict = frame.verdict
    tags = "".join(f'<span class="tag {kind}">{TAGS[kind]}</span>' for kind in Kind if kind in frame.kinds)
    model = verdict.model
    version = "–" if model is None else f"{model.name} version {model.version}"
    if model is not None and model.channel != "stable":
        version += f" ({model.channel})"
    facts = {
        "Part": verdict.part or "–",
        "Judged": to_text(verdict.judged_us)[:19].replace("T", " ") + " UTC",
        "Score, threshold": f"{verdict.score or 0.0:.4g}, {verdict.threshold or 0.0:.4g}",
        "p-value": f"{verdict.p_value or 0.0:.4f}",
        "Model": version,
    }
    for opinion in verdict.opinions:
        facts[f"{opinion.channel.capitalize()} version {opinion.version}"] = (
            f"{opinion.decision.value}, p {opinion.p_value:.4f}"
        )
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    word = "" if frame.feedback is None else escape(said(frame.feedback))
    return (
        f'<article id="{escape(verdict.id)}"><div class="pair">'
        f"{_figure(image, 'Frame', 'The frame has expired.')}"
        f"{_figure(heat, 'Heat map', 'No heat map.')}</div>"
        f'<div class="body"><div class="head"><code>{escape(verdict.id)}</code>{tags}</div>'
        f'{_meter(frame)}<dl class="facts">{rows}</dl>{_levels(frame)}'
        f'{form}<p class="said" role="status">{word}</p></div></article>'
    )


def _figure(source: str, caption: str, none: str) -> str:
    missing = "" if source else ' class="none"'
    lazy = ' loading="lazy"' if source.startswith("/") else ""
    image = f'<img src="{escape(source)}" alt="{caption}"{lazy}>' if source else ""
    return f'<figure{missing} data-none="{none}">{image}<figcaption>{caption}</figcaption></figure>'


def _meter(frame: ReviewFrame) -> str:
    """Score against threshold: the mark stands at the threshold, three fifths of the way."""
    score, threshold = frame.verdict.score or 0.0, frame.verdict.threshold or 0.0
    share = min(100.0, 60.0 * score / threshold) if threshold > 0 else 0.0
    kind = next(kind for kind in Kind if kind in frame.kinds)
    return (
        '<svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" y="2" width="100" height="6"/>'
        f'<rect class="{kind}" y="2" width="{share:.2f}" height="6"/>'
        '<rect class="limit" x="60" width=".6" height="10"/></svg>'
    )


def _levels(frame: ReviewFrame) -> str:
    if not frame.contributions:
        return ""
    top = max(*frame.contributions.values(), 1e-9)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>"
        '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect width="{100 * value / top:.2f}" height="8"/></svg></td>'
        f"<td>{value:.4g}</td></tr>"
        for name, value in frame.contributions.items()
    )
    opened = " open" if frame.verdict.decision is Decision.FAIL else ""
    return f"<details{opened}><summary>What each level gives to the score</summary><table>{rows}</table></details>"


def _form(frame: ReviewFrame, token: str) -> str:
    label = None if frame.feedback is None else frame.feedback.label
    buttons = "".join(
        f'<button class="{each.value}" name="label" value="{each.value}" aria-pressed="{str(label is each).lower()}">'
        f"{each.value.capitalize()}</button>"
        for each in Label
    )
    return (
        '<form class="say" method="post" action="/feedback">'
        f'<input type="hidden" name="token" value="{escape(token)}">'
        f'<input type="hidden" name="id" value="{escape(frame.verdict.id)}">'
        f'<input name="note" placeholder="Why (optional)" aria-label="Why" maxlength="{NOTE_MAX_BYTES // 4}">'
        f"{buttons}</form>"
    )


def _inline(data: bytes | None) -> str:
    return "" if data is None else "data:image/jpeg;base64," + base64.b64encode(data).decode()
