"""The plot of rates over time: what stands in it can be read."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from gaussline.worker.learning.timeline import WIDTH, Mark, timeline

NARROW = 5.8
"""Pixels of a letter of a mark's text, as a browser draws it."""


def labels(texts: list[Mark]) -> list[tuple[float, float, float]]:
    """(y, start, end) of the marks' texts."""
    drawn = timeline("rates", [("one", [0, 4400], [0.1, 0.2])], texts, stated=0.05, label_x="frames")
    found = []
    for element in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text"):
        if element.get("class") == "small":
            x, width = float(element.attrib["x"]), NARROW * len(element.text or "")
            start = x - width if element.get("text-anchor") == "end" else x
            found.append((float(element.attrib["y"]), start, start + width))
    return found


def test_no_label_lies_on_another_or_outside() -> None:
    """As in a demo where much happens at its end."""
    marks = [
        Mark(1050, "the lamp dims"),
        Mark(1497, "first of 8 canaries promoted"),
        Mark(3080, "bad parts in a row", 3300.0),
        Mark(3654, "v10 taken off trial"),
        Mark(3654, "v1 on trial again"),
        Mark(3798, "v1 rolled back"),
    ]
    found = sorted(labels(marks))
    assert len(found) == len(marks)
    assert all(before[0] < after[0] or before[2] < after[1] for before, after in pairwise(found))
    assert all(start >= 0 and end <= WIDTH for _, start, end in found)
