"""Every backbone is what its description says, and folding changes nothing that matters."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import get_model_weights

from gaussline.worker.errors import BackboneMismatch, NotFound, WeightsUnavailable
from gaussline.worker.vision import backbones
from gaussline.worker.vision.backbones import Backbone, fold_batch_norm, load_backbone, load_for, pool
from gaussline.worker.vision.registry import WEIGHTS, entry, names
from gaussline.worker.vision.weights import WeightsSource

RANDOM = WeightsSource(random_seed=0)
ISSUE_CHANNELS = {
    "efficientnet_b0": (32, 16, 24, 40, 80, 112, 192, 320, 1280),
    "efficientnet_b4": (48, 24, 32, 56, 112, 160, 272, 448, 1792),
    "efficientnet_b7": (64, 32, 48, 80, 160, 224, 384, 640, 2560),
}


def noise(number: int, size: int) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", names())
def test_a_backbone_is_what_its_description_says(name: str) -> None:
    described = entry(name)
    _, network = backbones._network(name, RANDOM)
    seen: dict[str, torch.Tensor] = {}

    def keep(path: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        seen[path] = output.clone()  # at once: a later in-place activation would change it

    for path in described.levels:
        network.get_submodule(path).register_forward_hook(partial(keep, path))
    x = noise(1, 64)
    with torch.inference_mode():
        network(x)
        backbone = load_backbone(name, RANDOM)
        maps, features = backbone.maps(x), backbone(x)
    assert backbone.spec.levels == described.levels
    assert backbone.spec.input_size == described.native_size
    for path, width, level, feature in zip(described.levels, described.channels, maps, features, strict=True):
        assert level.shape == seen[path].shape
        assert level.shape[1] == width
        assert feature.dtype == torch.float32
        scale = float(seen[path].abs().max())
        assert scale > 1e-3
        # Folded here, plain in the network that torchvision runs.
        torch.testing.assert_close(level, seen[path], rtol=1e-4, atol=1e-5 * scale)
        torch.testing.assert_close(feature, seen[path].mean((2, 3)), rtol=1e-4, atol=1e-5 * scale)


def test_descriptions_agree_with_the_issue_and_with_torchvision() -> None:
    for name, channels in ISSUE_CHANNELS.items():
        assert entry(name).channels == channels
    for name in names():
        crop = get_model_weights(name).__members__[WEIGHTS].transforms.keywords["crop_size"]
        # B2 was published at 260; torchvision evaluates its own at 288.
        assert entry(name).native_size == ((260, 260) if name == "efficientnet_b2" else (crop, crop)), name


def test_a_backbone_is_frozen_and_has_no_layer_behind_its_last_level() -> None:
    whole = load_backbone("resnet18", RANDOM)
    part = load_backbone("resnet18", RANDOM, levels=["layer2", "maxpool"])
    assert not part.training
    assert not any(parameter.requires_grad for parameter in part.parameters())
    assert len(part.stages) == 3
    assert part.spec.channels == (128, 64)
    # What the weights are does not depend on how much of them is used.
    assert part.spec.weights_digest == whole.spec.weights_digest
    x = noise(2, 64)
    with torch.inference_mode():
        torch.testing.assert_close(part(x), [whole(x)[2], whole(x)[0]])


def test_folding_takes_every_batch_norm_away() -> None:
    for name in ("resnet18", "efficientnet_b0", "mobilenet_v3_small"):
        left = [m for m in load_backbone(name, RANDOM).modules() if isinstance(m, nn.BatchNorm2d)]
        assert left == []


def test_folding_would_be_caught_if_it_were_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_the_variance(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
        assert norm.running_var is not None
        norm.running_var.fill_(1.0)
        return fuse_conv_bn_eval(conv, norm)

    monkeypatch.setattr(backbones, "fuse_conv_bn_eval", forget_the_variance)
    with pytest.raises(AssertionError):
        test_a_backbone_is_what_its_description_says("resnet18")


def test_random_weights_come_from_their_seed_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (load_backbone("squeezenet1_1", WeightsSource(random_seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert one.spec == same.spec
    assert one.spec.random_weights
    with pytest.raises(BackboneMismatch, match="weights_digest"):
        one.spec.check_against(other.spec)


def test_numeric_modes() -> None:
    x = noise(2, 64)
    plain = load_backbone("mobilenet_v2", RANDOM)
    half = load_backbone("mobilenet_v2", RANDOM, numeric_mode="bfloat16")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half.spec.weights_digest == plain.spec.weights_digest
    with pytest.raises(BackboneMismatch, match="numeric_mode: bfloat16 here, float32 there"):
        half.spec.check_against(plain.spec)
    with torch.inference_mode():
        for one, two in zip(plain(x), half(x), strict=True):
            assert two.dtype == torch.float32
            moved = float((one - two).norm() / one.norm())
            assert 1e-5 < moved < 0.05
        maps = half.maps(x)
        assert maps[0].dtype == torch.bfloat16
        # Pooled in float32: a mean in bfloat16 loses what the low-variance directions live on.
        exact = maps[0].double().mean((2, 3))
        assert float((pool(maps[0]) - exact).abs().max() / exact.abs().max()) < 1e-6
        assert float((maps[0].mean((2, 3)) - exact).abs().max() / exact.abs().max()) > 1e-4


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="efficientnet_b4"):
        load_backbone("efficientnet_b9", RANDOM)
    with pytest.raises(NotFound, match=r"no level features\.99; it has features\.1"):
        load_backbone("mobilenet_v2", RANDOM, levels=["features.99"])
    with pytest.raises(NotFound, match="none named"):
        load_backbone("mobilenet_v2", RANDOM, levels=[])


def test_a_model_gets_the_backbone_it_was_fitted_with(tmp_path: Any) -> None:
    _, network = backbones._network("squeezenet1_1", RANDOM)
    torch.save(network.state_dict(), tmp_path / "one.pth")
    fitted = load_backbone("squeezenet1_1", tmp_path / "one.pth", levels=["features.4"], input_size=(96, 64))
    again = load_for(fitted.spec, tmp_path / "one.pth")
    assert isinstance(again, Backbone)
    assert again.spec == fitted.spec
    with torch.no_grad():
        next(network.parameters()).add_(1e-6)
    torch.save(network.state_dict(), tmp_path / "two.pth")
    with pytest.raises(BackboneMismatch, match="weights_digest"):
        load_for(fitted.spec, tmp_path / "two.pth")


def test_no_source_or_two_are_refused() -> None:
    with pytest.raises(WeightsUnavailable):
        WeightsSource()
    with pytest.raises(WeightsUnavailable):
        WeightsSource(pretrained=WEIGHTS, random_seed=1)


def test_fold_leaves_a_norm_without_a_convolution_alone() -> None:
    norm = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)).eval()
    fold_batch_norm(norm)
    assert isinstance(norm[1], nn.BatchNorm2d)
