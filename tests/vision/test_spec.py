"""The backbone spec: what it carries, what it refuses, when two of it are the same."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ArtefactError, BackboneMismatch

SPEC = BackboneSpec(
    name="mobilenet_v2",
    weights_digest="ab" * 32,
    weights_source="file:weights.pth",
    random_weights=False,
    levels=("features.1", "features.18"),
    channels=(16, 1280),
    input_size=(224, 192),
)
CHANGES: dict[str, Any] = {
    "name": "mobilenet_v3_small",
    "weights_digest": "cd" * 32,
    "random_weights": True,
    "levels": ("features.1", "features.17"),
    "channels": (16, 320),
    "input_size": (192, 224),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "numeric_mode": "bfloat16",
    "antialias": False,
    "fold_batch_norm": False,
    "numerics": 2,
    "views": ("hflip",),
}


def test_it_survives_json_and_stays_itself() -> None:
    assert BackboneSpec.from_json(SPEC.to_json()) == SPEC
    assert BackboneSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC
    assert BackboneSpec.from_json(SPEC.to_json()).digest == SPEC.digest


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_that_means_something_is_compared_and_digested(field: str) -> None:
    other = dataclasses.replace(SPEC, **{field: CHANGES[field]})
    with pytest.raises(BackboneMismatch, match=rf"differ in {field}: "):
        SPEC.check_against(other)
    assert other.digest != SPEC.digest


def test_no_field_was_forgotten() -> None:
    fixed = {"resize", "crop", "interpolation"}  # one value each, so far
    assert {field.name for field in dataclasses.fields(BackboneSpec)} == {*CHANGES, *fixed, "weights_source"}


def test_where_the_weights_lay_does_not_matter() -> None:
    other = dataclasses.replace(SPEC, weights_source="torchvision:IMAGENET1K_V1")
    SPEC.check_against(other)
    assert other.digest == SPEC.digest


def test_all_differences_are_named_at_once() -> None:
    with pytest.raises(BackboneMismatch, match=r"input_size: .* here, .* there; numeric_mode: float32 here, bfloat16"):
        SPEC.check_against(dataclasses.replace(SPEC, numeric_mode="bfloat16", input_size=(1, 1)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": ""}, "no name"),
        ({"name": 7}, "not a str"),
        ({"weights_digest": "xyz"}, "no SHA-256"),
        ({"levels": []}, "none, or not distinct"),
        ({"levels": ["a", "a"]}, "none, or not distinct"),
        ({"levels": "ab"}, "not a list of str"),
        ({"channels": [16]}, "each level a width"),
        ({"channels": [16, 0]}, "each level a width"),
        ({"channels": [16.0, 1280.0]}, "not a list of int"),
        ({"channels": [True, 1280]}, "not a list of int"),
        ({"input_size": [224]}, "no \\(height, width\\)"),
        ({"input_size": [224, 100_000]}, "no \\(height, width\\)"),
        ({"mean": [0.5, 0.5]}, "three finite"),
        ({"mean": [0.5, 0.5, float("nan")]}, "three finite"),
        ({"std": [0.5, 0.5, 0]}, "not positive"),
        ({"numeric_mode": "int8"}, "none of float32"),
        ({"resize": "fit"}, "resize 'fit'"),
        ({"crop": "centre"}, "crop 'centre'"),
        ({"random_weights": 0}, "not a bool"),
        ({"antialias": None}, "not a bool"),
        ({"colour": "bgr"}, "does not know"),
    ],
)
def test_what_is_not_sound_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ArtefactError, match=says):
        BackboneSpec.from_dict(SPEC.to_dict() | change)


def test_missing_fields_take_their_defaults_or_are_named() -> None:
    said = SPEC.to_dict()
    del said["antialias"]
    assert BackboneSpec.from_dict(said) == SPEC
    del said["levels"]
    with pytest.raises(ArtefactError, match="lacks levels"):
        BackboneSpec.from_dict(said)
    for text in ("{", "[]", "7"):
        with pytest.raises(ArtefactError):
            BackboneSpec.from_json(text)
