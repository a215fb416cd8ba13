"""Where weights come from, what is refused, and their digest."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from gaussline.worker.errors import BackboneMismatch, WeightsUnavailable
from gaussline.worker.vision import weights
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.weights import WeightsSource, digest_of, pretrained_state_dict, read_state_dict

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found: dict[str, torch.Tensor] = torchvision.models.get_model(NAME, weights=None).state_dict()
        return found


def test_files_of_both_kinds_give_the_same_weights(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    one, two = (load_backbone(NAME, tmp_path / name).spec for name in ("w.pth", "w.safetensors"))
    one.check_against(two)
    assert one.digest == two.digest
    assert one.weights_source == "file:w.pth"
    assert not one.random_weights


def test_other_weights_are_refused_by_name(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({key: value for key, value in state.items() if key != "features.0.weight"}, tmp_path / "short.pth")
    with pytest.raises(BackboneMismatch, match=r"features\.0\.weight"):
        load_backbone(NAME, tmp_path / "short.pth")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BackboneMismatch, match="not those of resnet18"):
        load_backbone("resnet18", tmp_path / "w.pth")
    torch.save(state | {"features.0.bias": state["features.0.bias"] * float("nan")}, tmp_path / "nan.pth")
    with pytest.raises(BackboneMismatch, match=r"not finite in features\.0\.bias"):
        load_backbone(NAME, tmp_path / "nan.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(BackboneMismatch, match="not a state dict"):
        read_state_dict(tmp_path / "list.pth")


class _Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def test_what_is_no_state_dict_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Hostile(mark)))
    torch.save({"x": _Hostile(mark)}, tmp_path / "zip.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    for name in ("plain.pth", "zip.pth", "text.pth", "empty.pth", "text.safetensors"):
        with pytest.raises(WeightsUnavailable, match="no plain state dict"):
            read_state_dict(tmp_path / name)
    assert not mark.exists()
    for missing in (tmp_path / "none.pth", tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsUnavailable, match="cannot be read"):
            read_state_dict(missing)


def test_the_digest_sees_every_bit_and_no_order(state: dict[str, torch.Tensor]) -> None:
    digest = digest_of(state)
    assert digest == digest_of(dict(reversed(list(state.items()))))
    assert digest == digest_of(state | {"bn.num_batches_tracked": torch.tensor(7)})
    for key in ("features.0.weight", "classifier.1.bias"):
        moved = state[key].clone()
        moved.view(-1)[-1] = torch.nextafter(moved.view(-1)[-1], torch.tensor(10.0))
        assert digest != digest_of(state | {key: moved})
    assert digest != digest_of({f"x{key}": value for key, value in state.items()})
    bias = state["features.0.bias"]
    assert digest != digest_of(state | {"features.0.bias": bias.reshape(1, -1)})
    # Bytes in memory order, not those of a view.
    assert digest_of({"w": torch.arange(6.0).view(2, 3).T}) == digest_of({"w": torch.arange(6.0).view(2, 3).T.clone()})


def _pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Callable[[], io.BytesIO]) -> list[float]:
    timeouts: list[float] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        timeouts.append(timeout)
        return answer()

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return timeouts


def test_no_network_is_said_plainly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer() -> io.BytesIO:
        raise urllib.error.URLError("Name or service not known")

    timeouts = _pretend(monkeypatch, tmp_path, answer)
    with pytest.raises(WeightsUnavailable, match=r"cannot be downloaded .*Name or service not known.*fetch https"):
        load_backbone(NAME)
    assert timeouts == [weights._TIMEOUT_S]
    assert list((tmp_path / "hub").rglob("*.*")) == []


def test_a_damaged_download_is_thrown_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _pretend(monkeypatch, tmp_path, lambda: io.BytesIO(b"an error page"))
    with pytest.raises(WeightsUnavailable, match="came damaged"):
        load_backbone(NAME)
    assert list((tmp_path / "hub").rglob("*.*")) == []


class _Weights:
    def __init__(self, only: SimpleNamespace) -> None:
        self.__members__ = {"IMAGENET1K_V1": only}

    def __getitem__(self, name: str) -> SimpleNamespace:
        return self.__members__[name]


def test_a_good_download_is_kept(
    state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = io.BytesIO()
    torch.save(state, file)
    body = file.getvalue()
    digest = hashlib.sha256(body).hexdigest()
    calls = _pretend(monkeypatch, tmp_path, lambda: io.BytesIO(body))

    known = SimpleNamespace(url=f"https://example.org/models/{NAME}-{digest[:8]}.pth")
    monkeypatch.setattr(weights, "get_model_weights", lambda name: _Weights(known))
    for _ in range(2):
        assert digest_of(pretrained_state_dict(NAME, "IMAGENET1K_V1")) == digest_of(state)
    assert len(calls) == 1


def test_how_weights_are_named_in_settings() -> None:
    assert str(WeightsSource.parse(None)) == str(WeightsSource.parse("torchvision")) == "torchvision:IMAGENET1K_V1"
    assert WeightsSource.parse("torchvision:IMAGENET1K_V2").pretrained == "IMAGENET1K_V2"
    assert WeightsSource.parse("some/file.pth").file == Path("some/file.pth")
    assert str(WeightsSource(random_seed=7)) == "random:7"
    with pytest.raises(WeightsUnavailable, match="it has IMAGENET1K_V1"):
        pretrained_state_dict(NAME, "IMAGENET21K")
