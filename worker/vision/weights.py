"""Weights of a backbone: from torchvision, from a file, or from a seed; and their digest.

Nothing here unpickles code: `.pth` files are read with `weights_only`, `.safetensors` files hold only numbers.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torchvision.models import get_model_weights

from gaussline.worker.errors import BackboneMismatch, WeightsUnavailable
from gaussline.worker.vision.registry import WEIGHTS

StateDict = Mapping[str, torch.Tensor]
PRETRAINED: Final = "torchvision"
SUFFIXES: Final = (".pth", ".pt", ".safetensors")
_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """Where the weights of a backbone come from: exactly one of three.

    Attributes:
        file: a `.pth` or `.safetensors` state dict, as torchvision names its tensors; or a folder of several, each
            named after its backbone.
        pretrained: name of torchvision's weights, such as `IMAGENET1K_V1`.
        random_seed: draw them. Demonstrations and tests only.
    """

    file: Path | None = None
    pretrained: str | None = None
    random_seed: int | None = None

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.file, self.pretrained, self.random_seed)) != 1:
            raise WeightsUnavailable("weights come from a file, from torchvision or from a seed: name one")

    @classmethod
    def parse(cls, text: str | Path | None) -> WeightsSource:
        """None and `torchvision` mean torchvision's first weights, `torchvision:NAME` others; all else is a file."""
        if text is None or text == PRETRAINED:
            return cls(pretrained=WEIGHTS)
        if isinstance(text, str) and text.startswith(PRETRAINED + ":"):
            return cls(pretrained=text.removeprefix(PRETRAINED + ":"))
        return cls(file=Path(text))

    def of(self, name: str) -> WeightsSource:
        """The source of one backbone: of a folder, the file in it that is named `NAME` or begins with it.

        Raises WeightsUnavailable where there is none, or more than one.
        """
        if self.file is None or not self.file.is_dir():
            return self
        plain = name.rpartition(":")[2]
        files = [file for file in sorted(self.file.iterdir()) if file.suffix in SUFFIXES]
        found = [file for file in files if file.stem == plain] or [
            file for file in files if file.stem.startswith((plain + "_", plain + "-", plain + "."))
        ]
        if len(found) != 1:
            there = ", ".join(file.name for file in found) or "none"
            raise WeightsUnavailable(
                f"folder {self.file} must hold one file of weights named {plain}{SUFFIXES[0]}: it has {there}"
            )
        return WeightsSource(file=found[0])

    def __str__(self) -> str:
        if self.file is not None:
            return f"file:{self.file.name}"
        if self.pretrained is not None:
            return f"{PRETRAINED}:{self.pretrained}"
        return f"random:{self.random_seed}"


def read_state_dict(path: Path) -> StateDict:
    """A state dict from a file. Raises WeightsUnavailable (unreadable), BackboneMismatch (something else)."""
    try:
        loaded = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except OSError as error:
        raise WeightsUnavailable(f"weights file {path} cannot be read: {error.strerror or error}") from None
    # torch and the unpickler beneath it raise many kinds for a file that holds something else
    except (RuntimeError, ValueError, EOFError, LookupError, SafetensorError, AttributeError, TypeError) as error:
        raise WeightsUnavailable(f"weights file {path} holds no plain state dict: {_first_line(error)}") from None
    except Exception as error:  # pickle.UnpicklingError and what hostile pickles provoke; nothing of it was run
        raise WeightsUnavailable(f"weights file {path} holds no plain state dict: {_first_line(error)}") from None
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    ):
        raise BackboneMismatch(f"weights file {path} holds a {type(loaded).__name__}, not a state dict of tensors")
    return loaded


def pretrained_state_dict(name: str, weights: str) -> StateDict:
    """torchvision's own weights, from its cache or downloaded and checked. Raises WeightsUnavailable."""
    known = get_model_weights(name)
    if weights not in known.__members__:
        raise WeightsUnavailable(
            f"torchvision has no weights {weights} for {name}; it has {', '.join(known.__members__)}"
        )
    url: str = known[weights].url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(urlsplit(url).path).name
    if not path.exists():
        _download(url, path, name)
    return read_state_dict(path)


def _download(url: str, path: Path, name: str) -> None:
    # Not torch.hub's downloader: it waits for ever where a firewall swallows packets.
    what = f"pretrained weights of {name}"
    hint = f"fetch {url} elsewhere and name the file as weights"
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
            try:
                with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
                    while chunk := response.read(1 << 20):
                        digest.update(chunk)
                        partial.write(chunk)
                partial.close()
                # torchvision's file names end with the first eight digits of their SHA-256.
                expected = path.stem.rsplit("-", 1)[-1]
                if not digest.hexdigest().startswith(expected):
                    raise WeightsUnavailable(f"{what} came damaged: the SHA-256 does not begin with {expected}; {hint}")
                os.replace(partial.name, path)
            except BaseException:
                Path(partial.name).unlink(missing_ok=True)
                raise
    except (OSError, ValueError) as error:  # every network error is an OSError
        raise WeightsUnavailable(f"{what} cannot be downloaded ({_first_line(error)}); {hint}") from None


def digest_of(state: StateDict) -> str:
    """SHA-256 (hex) of a state dict in canonical form: names in order, each with its dtype, shape and bytes.

    Batch counters are left out: they change nothing in evaluation, and some files lack them.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        if key.endswith("num_batches_tracked"):
            continue
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
