"""Several backbones side by side, as one: `mobilenet_v2+squeezenet1_1`.

What an ensemble of models is to this method, one model over the levels of several trunks: the score is a sum over
levels, so it does not ask whose they are. So one spec, one artefact, one pass, one heat map, one version to roll out,
and nothing else that knows of ensembles. All trunks see the same picture at the same input size; a trunk that was
trained with another mean and deviation of the colours is given its own. A level is named after its backbone,
`mobilenet_v2:features.17`, and the spec's digest of the weights is taken over those of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import NotFound
from gaussline.worker.vision.trunk import Backbone, Taken

SEPARATOR: Final = "+"
_OF: Final = ":"


def members_of(name: str, levels: Sequence[str] | None) -> dict[str, tuple[str, ...] | None]:
    """The backbones of an ensemble's name, each with its levels without their prefix; None where all are wanted.

    Raises NotFound where a backbone is named twice, or a level belongs to none of them.
    """
    names = name.split(SEPARATOR)
    if len(set(names)) != len(names) or not all(names):
        raise NotFound(f"an ensemble is several backbones, each once: {name!r:.200} is none")
    if levels is None:
        return dict.fromkeys(names)
    own: dict[str, list[str]] = {member: [] for member in names}
    for level in levels:
        member, separator, rest = level.rpartition(_OF)
        if not separator or member not in own:
            raise NotFound(f"level {level!r:.80} of {name} must begin with one of its backbones, such as {names[0]}:")
        own[member].append(rest)
    return {member: tuple(found) for member, found in own.items() if found}


class Ensemble(Backbone):
    """Backbones that see the same picture; their levels stand one behind the other.

    Attributes:
        spec: of all together.
    """

    def __init__(self, members: Sequence[Backbone]) -> None:
        """Args: members: of one input size, numeric mode and list of views."""
        nn.Module.__init__(self)
        self.members = nn.ModuleList(members)
        self.spec = joined([member.spec for member in members])
        self._grids = tuple(cut.grid for cut in self.spec.cuts)
        self._colours = [_recoloured(self.spec, member.spec) for member in members]
        self.eval().requires_grad_(False)

    def _run(self, x: torch.Tensor, take: Callable[[torch.Tensor, int], list[Taken]]) -> list[Taken]:
        found: list[Taken] = []
        for member, colours in zip(self.members, self._colours, strict=True):
            assert isinstance(member, Backbone)
            own = x
            if colours is not None:
                scale, shift = (torch.tensor(part, dtype=x.dtype, device=x.device)[:, None, None] for part in colours)
                own = x * scale + shift
            found += member._run(own, take)
        return found


def joined(specs: Sequence[BackboneSpec]) -> BackboneSpec:
    """The spec of several backbones side by side. Mean and deviation of the colours are the first one's."""
    digest = hashlib.sha256()
    for spec in specs:
        # The colours of a member are in no other field of the whole.
        digest.update(f"{spec.name} {spec.weights_digest} {spec.mean} {spec.std}\n".encode())
    return replace(
        specs[0],
        name=SEPARATOR.join(spec.name for spec in specs),
        weights_digest=digest.hexdigest(),
        weights_source=SEPARATOR.join(spec.weights_source for spec in specs),
        random_weights=any(spec.random_weights for spec in specs),
        levels=tuple(f"{spec.name}{_OF}{level}" for spec in specs for level in spec.levels),
        channels=tuple(width for spec in specs for width in spec.channels),
    )


def _recoloured(given: BackboneSpec, wanted: BackboneSpec) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(scale, shift) a channel from one normalisation to another; None where they are the same."""
    if (given.mean, given.std) == (wanted.mean, wanted.std):
        return None
    scale = tuple(have / want for have, want in zip(given.std, wanted.std, strict=True))
    shift = tuple((have - want) / by for have, want, by in zip(given.mean, wanted.mean, wanted.std, strict=True))
    return scale, shift
