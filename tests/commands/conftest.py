"""A line with a small model on a real Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.learning.dataset import read_dataset
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.pipeline import BackboneOptions, read_features
from tests.support.lines import cli, server, way

__all__ = ["cli", "server", "way"]


@pytest.fixture(scope="package")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of rendered parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_folder(SyntheticParts(5, size=64), folder, good=40, defects=3)
    return folder


@pytest.fixture(scope="package")
def artefact(parts: Path) -> Artefact:
    """A model of a small backbone with seeded random weights: for plumbing, not for science."""
    extractor = BackboneOptions(
        "squeezenet1_1", random_seed=1, input_size=64, levels=("features.1", "features.4"), batch_size=4, device="cpu"
    ).open()
    images = read_features(extractor, read_dataset(parts).normal)
    return fit_model(images.features, extractor.spec, FitOptions(rate=0.1)).to_artefact()


@pytest.fixture
def model_file(artefact: Artefact, tmp_path: Path) -> Path:
    """The same in a file."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(artefact.data)
    return path
