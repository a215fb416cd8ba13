"""The fuzzer's corpus, replayed: seeds, and every input that ever broke a decoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
FILES = sorted(CORPUS.glob("*/*"))


def test_every_target_has_seeds() -> None:
    assert {file.parent.name for file in FILES} == set(TARGETS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_no_input_of_the_corpus_breaks_its_decoder(file: Path) -> None:
    TARGETS[file.parent.name](file.read_bytes())
