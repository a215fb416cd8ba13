"""Views: ways to look at one image whose features are averaged.

A view turns or relights the image; its feature maps are turned back before the mean is taken, so that a place in the
mean is one place of the part. What is averaged belongs to the backbone spec: it changes what a feature means.
"""

from __future__ import annotations

from typing import Final

from gaussline.worker.errors import ArtefactError

IDENTITY: Final = "identity"
TURNS: Final = ("identity", "hflip", "vflip", "rot90", "rot180", "rot270")
BRIGHTNESS: Final = "brightness:"
MAX_VIEWS: Final = 16
BRIGHTNESS_RANGE: Final = (0.25, 4.0)


def brightness(view: str) -> float | None:
    """The factor of a view that relights, None of one that turns. Raises ArtefactError for what is no view."""
    if view in TURNS:
        return None
    try:
        factor = float(view.removeprefix(BRIGHTNESS)) if view.startswith(BRIGHTNESS) else float("nan")
    except ValueError:
        factor = float("nan")
    if not BRIGHTNESS_RANGE[0] <= factor <= BRIGHTNESS_RANGE[1]:
        low, high = BRIGHTNESS_RANGE
        raise ArtefactError(
            f"there is no view {view!r:.40}: {', '.join(TURNS)}, or {BRIGHTNESS}F with F {low} to {high}"
        )
    return factor


def check_views(views: tuple[str, ...], input_size: tuple[int, int]) -> str | None:
    """What is wrong with a spec's views, None where nothing is."""
    if len(views) > MAX_VIEWS or len(set(views)) != len(views):
        return f"views {views!r:.200} are more than {MAX_VIEWS}, or not distinct"
    for view in views:
        try:
            brightness(view)
        except ArtefactError as error:
            return str(error)
        if view in ("rot90", "rot270") and input_size[0] != input_size[1]:
            return f"view {view} needs a square input, not {input_size}"
    return None
