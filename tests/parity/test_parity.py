"""Checkpoints that Keras, torchvision and timm saved themselves: read, our networks answer as theirs do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from networks import Array, relative_difference
from peers import OURS, SUFFIXES, Peer, import_keras, make_peer
from PIL import Image

from edge_resnet import demo
from edge_resnet.errors import ModelError
from edge_resnet.models import ResNet
from edge_resnet.weights import load_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2

TOLERANCE = 1e-4
HEIGHT, WIDTH = 49, 65
"""Odd, so that every padding and rounding counts that a stride meets; not square, so that no axis stands for another."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REAL = [demo.TEST / "sneaker" / "00009.png", demo.TEST / "dress" / "00013.png"]


@lru_cache(maxsize=1)
def images() -> Array:
    """Eight random images and two real ones, enlarged; normalised float32 10×3×H×W."""
    real = [np.asarray(Image.open(path).convert("RGB").resize((WIDTH, HEIGHT))) for path in REAL]
    normalised = (np.stack(real) / 255 - MEAN) / STD
    random = np.random.default_rng(0).standard_normal((8, 3, HEIGHT, WIDTH))
    return np.concatenate([random, normalised.transpose(0, 3, 1, 2)]).astype(np.float32)


@lru_cache(maxsize=1)  # one network in memory: its formats follow each other
def peer(library: str, name: str) -> Peer:
    try:
        return make_peer(library, name, images())
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}, which 'make setup' installs: pip install 'edge-resnet[parity]'")


def logits(model: ResNet) -> Array:
    with torch.no_grad():
        return model(torch.from_numpy(images())).numpy()


def pairs() -> Iterator[object]:
    """(library, its name, our name, suffix): every network in every format; deep and wide ones, in one, are long."""
    for library, names in OURS.items():
        for name, ours in names.items():
            heavy = any(part in name for part in ("101", "152", "wide"))
            for suffix in SUFFIXES[library][: 1 if heavy else None]:
                marks = [pytest.mark.long] if heavy else []
                yield pytest.param(library, name, ours, suffix, marks=marks, id=f"{library}-{name}{suffix}")


@pytest.mark.parametrize(("library", "name", "ours", "suffix"), list(pairs()))
def test_a_network_answers_as_it_did_there(library: str, name: str, ours: str, suffix: str, tmp_path: Path) -> None:
    reference, path = peer(library, name), tmp_path / f"weights{suffix}"
    assert reference.logits.std(axis=0).mean() > 100 * TOLERANCE * np.abs(reference.logits).max(), "images must matter"
    reference.save(path)
    model = load_model(ours, path)
    assert relative_difference(logits(model), reference.logits) <= TOLERANCE
    assert sum(parameter.numel() for parameter in model.parameters()) == reference.parameters


def test_the_measure_tells_near_networks_apart(tmp_path: Path) -> None:
    reference, path = peer("torchvision", "resnet50"), tmp_path / "weights.pth"
    reference.save(path)
    assert relative_difference(logits(load_model("resnet50v1", path)), reference.logits) > 100 * TOLERANCE


@pytest.mark.parametrize(("name", "other"), [("ResNet50", "resnet50"), ("ResNet50V2", "resnet50v1")])
def test_a_keras_file_fits_its_own_architecture_alone(name: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.weights.h5"
    peer("keras", name).save(path)
    with pytest.raises(ModelError, match=f"does not fit {other} .*: it fits {OURS['keras'][name]}$"):
        load_model(other, path)


@pytest.mark.parametrize("name", ["ResNet50", "ResNet50V2"])
def test_a_keras_file_from_before_layers_had_their_names_in_it(name: str, tmp_path: Path) -> None:
    reference, path = peer("keras", name), tmp_path / "weights.weights.h5"
    reference.save(path)
    with h5py.File(path, "a") as file:
        removed = [
            group.attrs.pop("name") for group in (layer["vars"] for layer in file["layers"].values()) if group.attrs
        ]
    assert len(removed) > 100
    assert relative_difference(logits(load_model(OURS["keras"][name], path)), reference.logits) <= TOLERANCE


@pytest.fixture(scope="module")
def transfer() -> tuple[Any, Array]:
    """A network inside another model with a head of its own, as transfer learning has it, and its features of images."""
    try:
        keras = import_keras()
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}, which 'make setup' installs: pip install 'edge-resnet[parity]'")
    keras.utils.set_random_seed(0)
    base = keras.applications.ResNet50V2(weights=None, include_top=False, pooling="avg", input_shape=(HEIGHT, WIDTH, 3))
    model = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), base, keras.layers.Dense(5, name="head")])
    frames = np.ascontiguousarray(images().transpose(0, 2, 3, 1))
    with torch.no_grad():
        base(frames, training=True)  # moves BatchNorm's statistics
        return model, base(frames, training=False).numpy()


@pytest.mark.parametrize("suffix", SUFFIXES["keras"])
def test_a_network_inside_another_model(suffix: str, transfer: tuple[Any, Array], tmp_path: Path) -> None:
    model, features = transfer
    path = tmp_path / f"transfer{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    with pytest.raises(
        ModelError, match=r"no classifier of one layer .*; it has head.*calibrate that, or take features"
    ):
        load_model("resnet50v2", path)
    assert relative_difference(logits(load_model("resnet50v2", path, head="avg")), features) <= TOLERANCE
