"""`synthetic` in the place of a folder of pictures: parts that are rendered, for a first look without a camera."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gaussline.worker.commands.console import err

SYNTHETIC = Path("synthetic")
GOOD_PARTS = 330
"""Enough for the rate that `gaussline fit` states where it is given none."""
FIRST = 1_000_000
"""Far from what `gaussline produce synthetic` sends: a model must not judge the pictures that it was fitted on."""


@contextmanager
def rendered(folder: Path) -> Iterator[Path]:
    """The folder; in the place of `synthetic`, where there is no such folder, one of good parts just rendered."""
    if folder != SYNTHETIC or folder.exists():
        yield folder
        return
    from gaussline.producer.sources.synthetic import SyntheticParts, write_folder

    with tempfile.TemporaryDirectory() as made:
        err().print(f"rendering {GOOD_PARTS} good parts", highlight=False)
        parts = Path(made) / str(SYNTHETIC)
        write_folder(SyntheticParts(0), parts, good=GOOD_PARTS, defects=0, first=FIRST)
        yield parts
