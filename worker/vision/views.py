"""Views of a batch, and feature maps turned back: what `contract.views` names, on tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch

from gaussline.worker.contract.views import brightness

Turn = Callable[[torch.Tensor], torch.Tensor]
_TURNS: Final[Mapping[str, tuple[Turn, Turn]]] = {
    "identity": (lambda x: x, lambda x: x.clone()),
    "hflip": (lambda x: x.flip(-1), lambda x: x.flip(-1)),
    "vflip": (lambda x: x.flip(-2), lambda x: x.flip(-2)),
    "rot90": (lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(-1, (-2, -1))),
    "rot180": (lambda x: x.flip(-2, -1), lambda x: x.flip(-2, -1)),
    "rot270": (lambda x: x.rot90(-1, (-2, -1)), lambda x: x.rot90(1, (-2, -1))),
}


def seen(batch: torch.Tensor, view: str) -> torch.Tensor:
    """A uint8 (n, 3, h, w) batch as the view shows it."""
    factor = brightness(view)
    if factor is None:
        return _TURNS[view][0](batch)
    return batch.float().mul_(factor).add_(0.5).clamp_(0.0, 255.0).to(torch.uint8)


def turned_back(maps: torch.Tensor, view: str) -> torch.Tensor:
    """Feature maps (n, c, h, w) of a view, each cell where it lies on the image; memory of their own."""
    return maps.clone() if brightness(view) is not None else _TURNS[view][1](maps)
