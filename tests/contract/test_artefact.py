"""The artefact: same content, same digest; torn or tampered with, it does not open."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import gaussline.worker.contract.artefact as module
from gaussline.worker.contract.artefact import Artefact, digest_of
from gaussline.worker.errors import ArtefactError
from tests.contract.examples import artefact

DTYPES = [np.float64, np.float32, np.int64, np.uint8, np.bool_]
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, max_side=4)))
MANIFESTS = st.dictionaries(
    st.text(max_size=9).filter(lambda name: name != "v"),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9) | st.floats(-1e9, 1e9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
NAMES = st.from_regex(r"[a-z][a-z0-9.]{0,9}", fullmatch=True)


@given(MANIFESTS, st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_an_artefact_comes_back_as_it_went(manifest: dict[str, Any], content: dict[str, Any]) -> None:
    made = Artefact.pack(manifest, content)
    read = Artefact.unpack(made.data, made.digest)
    assert read.manifest == {"v": 1, **manifest}
    assert read.digest == made.digest == hashlib.sha256(made.data).hexdigest()
    assert set(read.arrays) == set(content)
    for name, array in content.items():
        assert (read.arrays[name].dtype, read.arrays[name].shape) == (array.dtype, array.shape)
        assert read.arrays[name].tobytes() == array.tobytes()


def test_the_digest_depends_on_the_content_alone() -> None:
    manifest = {"kind": "x", "b": 1, "a": {"d": 2, "c": 3}}
    content = {"one": np.arange(6.0).reshape(2, 3), "two": np.ones(3, np.float32)}
    made = Artefact.pack(manifest, content)
    turned = Artefact.pack(
        {"a": {"c": 3, "d": 2}, "b": 1, "kind": "x"},
        {"two": np.repeat(content["two"], 2)[::2], "one": np.asfortranarray(content["one"].astype(">f8"))},
    )
    assert turned.data == made.data
    for other in ({**manifest, "b": 2}, {**manifest, "e": 1}):
        assert Artefact.pack(other, content).digest != made.digest
    assert Artefact.pack(manifest, {**content, "two": np.full(3, 1 + 1e-7, np.float32)}).digest != made.digest


def test_the_digest_is_the_same_in_every_process() -> None:
    """Hash seeds differ from process to process; a digest that followed one would name another model each time."""
    program = "from tests.contract.examples import artefact; print(artefact().digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }
    assert digests == {artefact().digest}


@given(st.data())
def test_tampering_is_found_by_the_digest(data: st.DataObject) -> None:
    made = artefact()
    torn = bytearray(made.data)
    place = data.draw(st.integers(0, len(torn) - 1))
    torn[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArtefactError, match="torn or tampered with"):
        Artefact.unpack(bytes(torn), made.digest)


@given(st.data())
def test_a_torn_or_damaged_file_is_an_artefact_error_and_nothing_else(data: st.DataObject) -> None:
    made = artefact().data
    if data.draw(st.booleans()):
        damaged = bytearray(made[: data.draw(st.integers(0, len(made) - 1))])
    else:
        damaged = bytearray(made)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    try:
        Artefact.unpack(bytes(damaged))
    except ArtefactError:
        return
    assert len(damaged) == len(made)  # what still opens lost no byte; only its digest tells that one is another


def file(metadata: object, tail: bytes = b"") -> bytes:
    """A safetensors file without arrays and with this metadata."""
    header = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(header)) + header + tail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        bytes(8),
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 17 * 2**20) + bytes(100),
        file({}),
        file(None),
        file({"gaussline": "no json"}),
        file({"gaussline": "[]"}),
        file({"gaussline": "null"}),
        file({"gaussline": "{}"}),
        file({"gaussline": '{"v":2}'}),
        file({"gaussline": "[" * 100_000}),
        file({"gaussline": '{"v":1}'}, b"tail"),
    ],
)
def test_other_files_are_no_artefacts(data: bytes) -> None:
    with pytest.raises(ArtefactError):
        Artefact.unpack(data)


def places(**arrays: object) -> bytes:
    """A file of 16 bytes of arrays, which the header places like this."""
    header = json.dumps({"__metadata__": {"gaussline": '{"v":1}'}, **arrays}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(16)


def at(begin: int, end: int, *shape: object, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "data",
    [
        places(),
        places(a=at(0, 8, 2)),
        places(a=at(0, 8, 2), b=at(4, 16, 3)),
        places(a=at(0, 4, 1), b=at(8, 16, 2)),
        places(a=at(0, 16, 3)),
        places(a=at(0, 32, 8)),
        places(a=at(-16, 0, 4)),
        places(a=at(0, 16, -4, -1)),
        places(a=at(0, 16, 2.0, 2)),
        places(a=at(0, 16, True, 4)),
        places(a=at(0, 16, 4, dtype="O")),
        places(a=at(0, 16, 2**62, 2**62, 4)),
        places(a=[0, 16]),
    ],
)
def test_arrays_fill_the_file_without_gap_or_overlap(data: bytes) -> None:
    assert Artefact.unpack(places(a=at(0, 8, 2), b=at(8, 16, 1, 2))).arrays["b"].shape == (1, 2)
    with pytest.raises(ArtefactError):
        Artefact.unpack(data)


def test_what_was_read_cannot_be_written() -> None:
    """The arrays are views of the bytes that the digest speaks of."""
    with pytest.raises(ValueError, match="read-only"):
        Artefact.unpack(artefact().data).arrays["b"][...] = 1.0


def test_too_large_a_file_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    monkeypatch.setattr(module, "digest_of", lambda data: pytest.fail("hashed"))
    with pytest.raises(ArtefactError, match="over the limit of 10"):
        Artefact.unpack(bytes(11))


def test_a_manifest_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Artefact.pack({"x": float("nan")}, {})


def test_nothing_in_it_runs() -> None:
    """An array of objects is where other formats keep code."""
    with pytest.raises(Exception, match="object"):
        Artefact.pack({}, {"x": np.array([print], dtype=object)})


def test_digests_are_sha256() -> None:
    assert digest_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
