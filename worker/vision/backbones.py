"""The backbone: a frozen trunk that gives the feature maps of chosen levels, and the spec that says which."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gaussline.worker.contract.regions import MAX_GRID, cuts, region_names
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import BackboneMismatch, NotFound
from gaussline.worker.vision.ensemble import SEPARATOR, Ensemble, members_of
from gaussline.worker.vision.numeric import dtype_of
from gaussline.worker.vision.registry import BackboneEntry, entry
from gaussline.worker.vision.timm_backbones import PREFIX as TIMM
from gaussline.worker.vision.timm_backbones import timm_network
from gaussline.worker.vision.trunk import Backbone, pool, pool_regions
from gaussline.worker.vision.weights import (
    StateDict,
    WeightsSource,
    digest_of,
    pretrained_state_dict,
    read_state_dict,
)

__all__ = ["REGION_CHANNELS", "Backbone", "fold_batch_norm", "load_backbone", "load_for", "pool", "pool_regions"]
REGION_CHANNELS = 512
"""Levels of more channels stay whole: a few hundred frames tell little of so many, and each region would cost 8 MB."""


def load_backbone(
    name: str,
    weights: WeightsSource | str | Path | None = None,
    *,
    levels: Sequence[str] | None = None,
    input_size: tuple[int, int] | None = None,
    numeric_mode: str = "float32",
    grid: int = 1,
    views: Sequence[str] = (),
) -> Backbone:
    """Build a backbone by its name.

    Args:
        name: a registered name, `timm:NAME` where the package timm is installed, or several joined by `+`: an ensemble
            (see `ensemble`).
        weights: see `WeightsSource.parse`; random ones only as `WeightsSource(random_seed=…)`. An ensemble takes a
            folder with a file for each of its backbones.
        levels: a subset of the registered levels, or names of regions of them; None takes all. Of an ensemble each
            begins with its backbone: `mobilenet_v2:features.17`.
        input_size: (height, width); None takes the native one, of an ensemble the largest.
        numeric_mode: one of `contract.spec.NUMERIC_MODES`.
        grid: cut each level of at most `REGION_CHANNELS` channels into grid x grid regions.
        views: see `contract.views`.

    Raises:
        NotFound: no such backbone or level. WeightsUnavailable: the weights cannot be had. BackboneMismatch: they are
        another network's.
    """
    source = weights if isinstance(weights, WeightsSource) else WeightsSource.parse(weights)
    if SEPARATOR in name:
        parts = members_of(name, levels)
        size = input_size or max((_native_size(part) for part in parts), key=lambda sides: sides[0] * sides[1])
        return Ensemble(
            [
                load_backbone(
                    part, source, levels=own, input_size=size, numeric_mode=numeric_mode, grid=grid, views=views
                )
                for part, own in parts.items()
            ]
        )
    source = source.of(name)
    described, network = _network(name, source)
    chosen = tuple(levels) if levels is not None else described.levels
    widths = dict(zip(described.levels, described.channels, strict=True))
    if grid != 1:
        if not 1 <= grid <= MAX_GRID:
            raise NotFound(f"a grid of {grid} is not between 1 and {MAX_GRID}")
        fine = [grid if widths.get(level, 0) <= REGION_CHANNELS else 1 for level in chosen]
        chosen = tuple(part for level, parts in zip(chosen, fine, strict=True) for part in region_names(level, parts))
    wanted = cuts(chosen, [1] * len(chosen))
    unknown = [cut.level for cut in wanted if cut.level not in widths]
    if unknown or not chosen:
        raise NotFound(
            f"{name} has no level {', '.join(unknown) or '(none named)'}; it has {', '.join(described.levels)}"
        )
    ends = [stage.rsplit("+", 1)[-1] for stage in described.stages]
    prefixes = tuple(part + "." for stage in described.stages for part in stage.split("+"))
    trunk = {key: value for key, value in network.state_dict().items() if key.startswith(prefixes)}
    spec = BackboneSpec(
        name=name,
        weights_digest=digest_of(trunk),
        weights_source=str(source) if source.pretrained is None or not name.startswith(TIMM) else name,
        random_weights=source.random_seed is not None,
        levels=chosen,
        channels=tuple(widths[cut.level] for cut in wanted for _ in cut.names),
        input_size=described.native_size if input_size is None else input_size,
        mean=described.mean,
        std=described.std,
        numeric_mode=numeric_mode,
        views=tuple(views),
    )
    backbone = Backbone(
        [_stage(network, stage) for stage in described.stages], [ends.index(cut.level) for cut in wanted], spec
    )
    if spec.fold_batch_norm:
        fold_batch_norm(backbone)
    return backbone.to(dtype_of(numeric_mode))


def load_for(spec: BackboneSpec, weights: WeightsSource | str | Path | None = None) -> Backbone:
    """The backbone that a model was fitted with. Raises BackboneMismatch where these weights do not give it."""
    backbone = load_backbone(
        spec.name,
        weights,
        levels=spec.levels,
        input_size=spec.input_size,
        numeric_mode=spec.numeric_mode,
        views=spec.views,
    )
    backbone.spec.check_against(spec)
    return backbone


def _network(name: str, source: WeightsSource) -> tuple[BackboneEntry, nn.Module]:
    """A backbone's description and its whole network, with weights, in evaluation mode."""
    # Building draws random weights: from the seed that was asked for, or, as they are overwritten, from any but the
    # caller's own random state.
    with _seeded(source.random_seed or 0):
        if name.startswith(TIMM):
            described, network = timm_network(name, pretrained=source.pretrained is not None)
        else:
            described = entry(name)
            network = cast(nn.Module, torchvision.models.get_model(name, weights=None)).eval()
        if source.random_seed is not None:
            _settle_batch_norm(network)
    state: StateDict | None = None
    if source.file is not None:
        state = read_state_dict(source.file)
    elif source.pretrained is not None and not name.startswith(TIMM):
        state = pretrained_state_dict(name, source.pretrained)
    if state is not None:
        try:
            network.load_state_dict(dict(state), strict=True)
        except RuntimeError as error:
            said = " ".join(line.strip() for line in str(error).splitlines()[1:])
            raise BackboneMismatch(f"weights {source} are not those of {name}: {said[:300]}") from None
    broken = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise BackboneMismatch(f"weights {source} of {name} are not finite in {', '.join(broken[:3])}")
    return described, network


def _native_size(name: str) -> tuple[int, int]:
    if name.startswith(TIMM):
        with _seeded(0):
            return timm_network(name, pretrained=False)[0].native_size
    return entry(name).native_size


def _stage(network: nn.Module, path: str) -> nn.Module:
    modules = [network.get_submodule(part) for part in path.split("+")]
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def fold_batch_norm(module: nn.Module) -> None:
    """Fold every batch normalisation that follows a convolution into it, in float64.

    In exact arithmetic nothing changes; in float32 features move by about 1e-6 relative, and a CPU runs up to twice as
    fast. Relies on the two being registered one behind the other, which the tests check for every backbone by comparing
    outputs.
    """
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
            folded = fuse_conv_bn_eval(before[1].double(), child.double()).float()
            module.register_module(before[0], folded.requires_grad_(False))
            # timm's normalisation carries the activation that follows it.
            module.register_module(name, getattr(child, "act", nn.Identity()))
        else:
            fold_batch_norm(child)
        before = (name, child)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _settle_batch_norm(network: nn.Module) -> None:
    """Give batch normalisation the statistics that a signal would have left there.

    With the fresh ones (mean 0, variance 1) a deep network of random weights squashes what it is shown: at its last
    levels images differ by less than a float32's rounding, and scores would be made of that. So noise is sent through
    once, and each layer takes the scale of its input, rounded to a power of two so that every machine draws the same
    weights. Channels differ, as training would make them.
    """

    def settle(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # Half the signal's scale: at the full one, layers that multiply (gates, SiLU) make deep networks chaotic.
        scale = 2.0 * 2.0 ** round(math.log2(max(float(inputs[0].std()), 1e-12)))
        norm.running_mean.mul_(scale)
        norm.running_var.mul_(scale**2)

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.05)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.75, 1.25)
            module.bias.data.normal_(0.0, 0.05)
            hooks.append(module.register_forward_pre_hook(settle))
    noise = torch.randn(2, 3, 64, 64)
    if hooks:
        with torch.no_grad():
            network(noise)
    for hook in hooks:
        hook.remove()
