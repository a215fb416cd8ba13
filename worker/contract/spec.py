"""The backbone spec: everything that decides which features an image gives, without torch.

A model carries the spec it was fitted under; a worker compares it with the spec of the backbone it holds and refuses to
score where they differ. Low-variance directions magnify rounding, so numerics belong here and not to the runtime.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Final

from gaussline.worker.contract.regions import Cut, cuts
from gaussline.worker.contract.views import check_views
from gaussline.worker.errors import ArtefactError, BackboneMismatch

NUMERIC_MODES: Final = ("float32", "bfloat16", "tf32")
"""float32: plain. bfloat16: weights and activations in bfloat16, pooled in float32. tf32: float32 storage with
TensorFloat-32 products, CUDA only."""
NUMERICS_REVISION: Final = 1
"""Revision of what this package itself computes between an image and its features; raised when that changes."""
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """What a feature vector means.

    Attributes:
        name: name in the registry of backbones, such as `efficientnet_b4`.
        weights_digest: SHA-256 (hex) of the trunk's canonical state dict, before any folding or rounding.
        weights_source: where they came from, for people; the only field that two equal specs may differ in.
        random_weights: the weights were drawn from a seed. Demonstrations and tests only.
        levels: module path of each level, shallow to deep; of a level that is cut into regions, the name of each
            region (see `contract.regions`).
        channels: length of each level's feature vector.
        input_size: (height, width) of the network's input in pixels.
        mean, std: of each channel, for RGB in 0..1.
        numeric_mode: one of `NUMERIC_MODES`.
        resize: `squash` - both sides to the input size, whatever the aspect; nothing is cut away.
        crop: `none`.
        interpolation, antialias: of the resize, on 8-bit channels.
        fold_batch_norm: batch normalisation is folded into the convolution before it (in float64, then rounded).
        numerics: revision of this package's own part, `NUMERICS_REVISION`.
        views: ways to look at the image whose features are averaged (see `contract.views`); none is the image alone.
    """

    name: str
    weights_digest: str
    weights_source: str
    random_weights: bool
    levels: tuple[str, ...]
    channels: tuple[int, ...]
    input_size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    numeric_mode: str = "float32"
    resize: str = "squash"
    crop: str = "none"
    interpolation: str = "bilinear"
    antialias: bool = True
    fold_batch_norm: bool = True
    numerics: int = NUMERICS_REVISION
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem is not None:
            raise ArtefactError(f"backbone spec of {self.name!r:.80} is not sound: {problem}")

    def _problem(self) -> str | None:
        if not self.name:
            return "it has no name"
        if len(self.weights_digest) != 64 or not set(self.weights_digest) <= set("0123456789abcdef"):
            return f"weights_digest {self.weights_digest!r:.80} is no SHA-256 in hex"
        if not self.levels or len(set(self.levels)) != len(self.levels):
            return f"levels {self.levels!r:.200} are none, or not distinct"
        if len(self.channels) != len(self.levels) or any(c < 1 for c in self.channels):
            return f"channels {self.channels!r:.200} do not give each level a width"
        if len(self.input_size) != 2 or not all(1 <= side <= 16_384 for side in self.input_size):
            return f"input_size {self.input_size!r:.80} is no (height, width) of 1 to 16384 pixels"
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, self.mean + self.std)):
            return "mean and std are not three finite numbers each"
        if min(self.std) <= 0:
            return f"std {self.std} is not positive"
        if self.numeric_mode not in NUMERIC_MODES:
            return f"numeric_mode {self.numeric_mode!r:.40} is none of {', '.join(NUMERIC_MODES)}"
        try:
            cuts(self.levels, self.channels)
        except ArtefactError as error:
            return str(error)
        problem = check_views(self.views, self.input_size)
        if problem is not None:
            return problem
        known = (self.resize, self.crop, self.interpolation) == ("squash", "none", "bilinear")
        if not known:
            return f"resize {self.resize!r:.40}, crop {self.crop!r:.40}, interpolation {self.interpolation!r:.40}"
        return None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the spec means: every field but `weights_source`."""
        return _digest(self)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The trunk's levels, each with how it is cut into regions."""
        return cuts(self.levels, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able fields by name."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> BackboneSpec:
        """The reverse of `to_dict`. Raises ArtefactError.

        A field of tomorrow is refused, not skipped: it would change what a feature means. Fields that an older build
        did not write take their defaults.
        """
        if not isinstance(said, Mapping):
            raise ArtefactError(f"backbone spec is a {type(said).__name__}, not a map")
        unknown = sorted(set(said) - set(_KINDS))
        if unknown:
            raise ArtefactError(f"backbone spec has fields that this build does not know: {unknown!r:.200}: update it")
        missing = sorted(_REQUIRED - set(said))
        if missing:
            raise ArtefactError(f"backbone spec lacks {', '.join(missing)}")
        return cls(**{key: _read(key, value) for key, value in said.items()})

    @classmethod
    def from_json(cls, text: str | bytes) -> BackboneSpec:
        """The reverse of `to_json`. Raises ArtefactError."""
        try:
            said = json.loads(text)
        except ValueError as error:
            raise ArtefactError(f"backbone spec is no JSON: {error}") from None
        return cls.from_dict(said)

    def check_against(self, other: BackboneSpec) -> None:
        """Raise BackboneMismatch, naming every differing field, unless both specs give the same features."""
        mine, theirs = self.to_dict(), other.to_dict()
        differing = [key for key in mine if key not in _FOR_PEOPLE and mine[key] != theirs[key]]
        if differing:
            said = "; ".join(f"{key}: {_short(mine[key])} here, {_short(theirs[key])} there" for key in differing)
            raise BackboneMismatch(f"backbone specs of {self.name} and {other.name} differ in {said}")


@lru_cache(maxsize=64)
def _digest(spec: BackboneSpec) -> str:
    """Remembered, because every verdict asks for it; a process knows a handful of specs."""
    said = {
        key: value
        for key, value in spec.to_dict().items()
        if key not in _FOR_PEOPLE and not (key in _APPENDED and not value)
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_FOR_PEOPLE: Final = frozenset({"weights_source"})
_APPENDED: Final = frozenset({"views"})
"""Fields that came later: where they say nothing they are left out of the digest, so that older specs keep theirs."""
_KINDS: Final[Mapping[str, tuple[type, type | None]]] = {
    "name": (str, None),
    "weights_digest": (str, None),
    "weights_source": (str, None),
    "random_weights": (bool, None),
    "levels": (list, str),
    "channels": (list, int),
    "input_size": (list, int),
    "mean": (list, float),
    "std": (list, float),
    "numeric_mode": (str, None),
    "resize": (str, None),
    "crop": (str, None),
    "interpolation": (str, None),
    "antialias": (bool, None),
    "fold_batch_norm": (bool, None),
    "numerics": (int, None),
    "views": (list, str),
}
_REQUIRED: Final = frozenset(
    {"name", "weights_digest", "weights_source", "random_weights", "levels", "channels", "input_size"}
)
assert set(_KINDS) == {field.name for field in fields(BackboneSpec)}


def _read(key: str, value: Any) -> Any:
    kind, item = _KINDS[key]
    if item is None:
        if type(value) is not kind:
            raise ArtefactError(f"{key} of a backbone spec is {value!r:.80}, not a {kind.__name__}")
        return value
    accepted = (int, float) if item is float else (item,)
    if not isinstance(value, list | tuple) or not all(type(part) in accepted for part in value):
        raise ArtefactError(f"{key} of a backbone spec is {value!r:.80}, not a list of {item.__name__}")
    return tuple(item(part) for part in value)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 72 else f"{text[:69]}..."
