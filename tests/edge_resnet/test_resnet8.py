"""MLPerf Tiny's ResNet-8 against Keras's own layers, through the files that Keras writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from edge_resnet.errors import ModelError
from edge_resnet.export import export_onnx, max_abs_error
from edge_resnet.preprocessing import NAMED
from edge_resnet.weights import load_model, own_preprocessing


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Three stacks of one block, as MLPerf Tiny describes its image classification model; other layers made before."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="pip install 'edge-resnet[parity]'")
    layers = keras.layers
    for _ in range(3):
        layers.Conv2D(1, 1), layers.BatchNormalization()

    def convolved(x: Any, width: int, stride: int = 1, *, activated: bool = True) -> Any:
        x = layers.BatchNormalization()(layers.Conv2D(width, 3, strides=stride, padding="same")(x))
        return layers.Activation("relu")(x) if activated else x

    images = keras.Input((32, 32, 3))
    x = convolved(images, 16)
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = convolved(convolved(x, width, stride), width, activated=False)
        if stride == 2:
            x = layers.Conv2D(width, 1, strides=2, padding="same")(x)
        x = layers.Activation("relu")(layers.add([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    model = keras.Model(images, layers.Dense(10, activation="softmax")(x))
    random = np.random.default_rng(0)
    for variable in model.weights:
        spread = random.uniform(0.5, 1.5, variable.shape) if variable.name in ("gamma", "moving_variance") else 0
        value = random.normal(0, 0.1, variable.shape) + spread
        variable.assign(np.abs(value) if variable.name == "moving_variance" else value)
    assert model.count_params() == 78_666  # as published
    return model


SAVED: dict[str, Callable[[Any, Path], Any]] = {
    "model.h5": lambda model, path: model.save(path),
    "model.keras": lambda model, path: model.save(path),
    "model.weights.h5": lambda model, path: model.save_weights(path),
}


@pytest.mark.parametrize("name", SAVED)
def test_answers_are_kerass(name: str, theirs: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    SAVED[name](theirs, path)
    preprocessing = own_preprocessing("resnet8", path)
    assert preprocessing == NAMED["mlperf-tiny"]
    model = load_model("resnet8", path)
    frames = np.random.default_rng(1).integers(0, 256, (10, 32, 32, 3), np.uint8)
    dense = theirs.layers[-1]
    pooled = type(theirs)(theirs.inputs, dense.input).predict(frames.astype(np.float32), verbose=0)
    kernel, bias = (np.asarray(variable) for variable in dense.get_weights())
    wanted = pooled @ kernel + bias  # what Keras takes the softmax of
    with torch.no_grad():
        found = model(torch.from_numpy(frames).permute(0, 3, 1, 2).float()).numpy()
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert max_abs_error(model, export_onnx(model, preprocessing), preprocessing) <= 1e-4 * np.abs(wanted).max()


def test_another_count_of_layers_is_not_resnet8(theirs: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    theirs.save(path)
    with h5py.File(path, "a") as file:
        names = [name for name in file["model_weights"] if name.startswith("conv2d")]
        del file["model_weights"][names[0]]
    with pytest.raises(ModelError, match="holds none of the layers of Keras's ResNets"):
        load_model("resnet8", path)


def test_other_architectures_do_not_fit(theirs: Any, tmp_path: Path) -> None:
    theirs.save(tmp_path / "model.h5")
    with pytest.raises(ModelError, match="does not fit resnet20 .*: it fits resnet8$"):
        load_model("resnet20", tmp_path / "model.h5")


def test_an_odd_size_cannot_be_halved() -> None:
    with pytest.raises(ModelError, match="a feature map of 15×15 cannot be halved: give an input size divisible by 4"):
        load_model("resnet8", None)(torch.zeros(1, 3, 30, 30))


def test_the_files_bring_their_preprocessing(
    theirs: Any, few: Path, cli_json: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    """No flag, and no [preprocessing] in the recipe; a size may be given alone."""
    theirs.save(tmp_path / "model.h5")
    result = cli("export", "--arch", "resnet8", "--weights", "model.h5", "-o", "model.onnx")
    assert "preprocessing: Keras's own for these weights, 32×32 rgb, mean (0.0, 0.0, 0.0)" in result.stderr
    spec = NAMED["mlperf-tiny"].to_json()
    assert cli_json("info", "model.onnx")["preprocessing"] == spec
    sized = ("export", "--arch", "ResNet-8", "--weights", "model.h5", "--input-shape", "48,40,3", "-o", "sized.onnx")
    assert cli_json(*sized)["parameters"] == 77_946
    assert cli_json("info", "sized.onnx")["preprocessing"] == {**spec, "size": [48, 40]}
    Path("edge-resnet.toml").write_text(
        f'[model]\narch = "resnet8"\nweights = "model.h5"\n[calibration]\nimages = "{few / "calibration"}"\n'
        '[quantize]\neffort = "fast"\n'
    )
    assert cli_json("build", "edge-resnet.toml")["targets"][0]["verified"] == "measured"
    assert cli_json("info", "model.edge")["preprocessing"] == spec


def test_what_goes_wrong_later_is_the_only_line(theirs: Any, refused: Callable[..., str], tmp_path: Path) -> None:
    theirs.save(tmp_path / "model.h5")
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    given = ("--arch", "resnet8", "--weights", "model.h5", "--labels", "labels.txt", "-o", "model.onnx")
    assert refused(2, "export", *given) == "2 labels for 10 classes: give one label a class"


def test_weights_of_torch_bring_none(refused: Callable[..., str], few: Path, tmp_path: Path) -> None:
    torch.save(load_model("resnet8", None).state_dict(), tmp_path / "model.pt")
    line = refused(2, "export", "--arch", "resnet8", "--weights", "model.pt", "-o", "model.onnx")
    assert line.startswith("the ONNX takes camera frames and so needs the preprocessing")
