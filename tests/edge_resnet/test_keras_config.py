"""Whole models that Keras saved: taken where our network computes the same, else refused by the layer's name."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from networks import relative_difference
from peers import import_keras

from edge_resnet.errors import ModelError
from edge_resnet.keras_config import TRAINING_ONLY
from edge_resnet.weights import load_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2

SIDE = 32


@pytest.fixture(scope="module")
def keras() -> Any:
    try:
        return import_keras()
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}, which 'make setup' installs: pip install 'edge-resnet[parity]'")


@pytest.fixture(scope="module")
def frames() -> Any:
    return np.random.default_rng(0).normal(0, 50, (3, SIDE, SIDE, 3)).astype(np.float32)


# --- ResNet-8, every part of which may be another ----------------------------------------------------------------------


def same(keras: Any, x: Any) -> Any:
    return x


def scaled(keras: Any, x: Any) -> Any:
    return keras.layers.Rescaling(1 / 255)(x)


def normalised(keras: Any, x: Any) -> Any:
    return keras.layers.Normalization(mean=(1.0,) * 3, variance=(2.0,) * 3)(x)


def calculated(keras: Any, x: Any) -> Any:
    return x / 127.5


def cropped(keras: Any, x: Any) -> Any:
    return keras.layers.RandomCrop(SIDE, SIDE)(x)


def padded(keras: Any, x: Any) -> Any:
    return keras.layers.CenterCrop(SIDE, SIDE)(keras.layers.ZeroPadding2D(4)(x))


def augmented(keras: Any, x: Any) -> Any:
    return keras.layers.RandomFlip("horizontal")(keras.layers.RandomRotation(0.1)(x))


def average_of_all(keras: Any, x: Any) -> Any:
    return keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(x))


def global_average(keras: Any, x: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D()(x)


def global_maximum(keras: Any, x: Any) -> Any:
    return keras.layers.GlobalMaxPooling2D()(x)


def average_of_some(keras: Any, x: Any) -> Any:
    return keras.layers.Flatten()(keras.layers.AveragePooling2D(5)(x))


def dropped_out(keras: Any, x: Any) -> Any:
    return keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))


def unit_length(keras: Any, x: Any) -> Any:
    return keras.layers.UnitNormalization()(keras.layers.GlobalAveragePooling2D()(x))


def tiny(
    keras: Any,
    *,
    front: Callable[[Any, Any], Any] = same,
    pooled: Callable[[Any, Any], Any] = global_average,
    activation: str | None = "softmax",
    inner: str = "relu",
    epsilon: float = 1e-3,
    strides: tuple[int, ...] = (1, 2, 2),
) -> Any:
    """MLPerf Tiny's ResNet-8, or almost."""
    layers = keras.layers
    keras.utils.set_random_seed(0)

    def convolved(x: Any, width: int, stride: int = 1) -> Any:
        return layers.BatchNormalization(epsilon=epsilon)(layers.Conv2D(width, 3, strides=stride, padding="same")(x))

    images = keras.Input((SIDE, SIDE, 3))
    x = layers.Activation(inner)(convolved(front(keras, images), 16))
    for width, stride in zip((16, 32, 64), strides, strict=True):
        y = layers.Activation(inner)(convolved(x, width, stride))
        y = convolved(y, width)
        if width > 16:
            x = layers.Conv2D(width, 1, strides=stride, padding="same")(x)
        x = layers.Activation(inner)(layers.add([x, y]))
    x = layers.Dense(10, activation=activation)(pooled(keras, x))
    return keras.Model(images, x)


def probabilities(path: Path, arch: str, frames: Any) -> Any:
    with torch.no_grad():
        return load_model(arch, path)(torch.from_numpy(frames).permute(0, 3, 1, 2)).softmax(1).numpy()


def named(value: Any) -> str:
    """An id that is the same in every process: functions by their names, not their addresses."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{key}={getattr(each, '__name__', each)}" for key, each in value.items()) or "plain"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "options",
    [{}, {"front": augmented}, {"pooled": dropped_out}, {"pooled": average_of_all}],
    ids=named,
)
def test_a_model_that_computes_the_same_is_taken(
    options: dict[str, Any], suffix: str, keras: Any, frames: Any, tmp_path: Path
) -> None:
    theirs, path = tiny(keras, **options), tmp_path / f"model{suffix}"
    theirs.save(path)
    assert np.abs(probabilities(path, "resnet8", frames) - theirs.predict(frames, verbose=0)).max() < 1e-4


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("options", "layer"),
    [
        ({"front": scaled}, r"'rescaling\w*' \(Rescaling\)"),
        ({"front": normalised}, r"'normalization\w*' \(Normalization\)"),
        ({"front": calculated}, r"'true_divide\w*' \(TrueDivide\)"),
        ({"front": cropped}, r"'random_crop\w*' \(RandomCrop\)"),
        ({"front": padded}, r"'zero_padding2d\w*' \(ZeroPadding2D\)"),
        ({"pooled": global_maximum}, r"'global_max_pooling2d\w*' \(GlobalMaxPooling2D\)"),
        ({"pooled": average_of_some}, r"'average_pooling2d\w*' \(AveragePooling2D\)"),
        ({"pooled": unit_length}, r"'unit_normalization\w*' \(UnitNormalization\)"),
        ({"activation": "sigmoid"}, r"'dense\w*' \(sigmoid\)"),
        ({"activation": "relu"}, r"'dense\w*' \(relu\)"),
        ({"inner": "gelu"}, r"'activation\w*' \(gelu\)"),
        ({"epsilon": 0.1}, r"'batch_normalization\w*' \(BatchNormalization with epsilon 0.1\)"),
        ({"strides": (1, 2, 1)}, r"'conv2d\w*' \(Conv2D of .×. at stride 1×1, dilation 1×1\)"),
    ],
    ids=named,
)
def test_a_model_that_computes_something_else_is_refused(
    options: dict[str, Any], layer: str, suffix: str, keras: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    tiny(keras, **options).save(path)
    wanted = (
        rf"model\{suffix} has the layer {layer} and resnet8 has not: .*: export the model to ONNX and calibrate that$"
    )
    with pytest.raises(ModelError, match=wanted):
        load_model("resnet8", path)


def test_what_is_behind_the_network_does_not_matter_to_features(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    tiny(keras, pooled=global_maximum, activation="sigmoid").save(path)
    assert load_model("resnet8", path, head="max").features == 64
    tiny(keras, front=scaled).save(path)
    with pytest.raises(ModelError, match="has the layer 'rescaling"):
        load_model("resnet8", path, head="max")


def test_a_linear_classifier_is_taken(keras: Any, frames: Any, tmp_path: Path) -> None:
    theirs, path = tiny(keras, activation=None), tmp_path / "model.keras"
    theirs.save(path)
    with torch.no_grad():
        ours = load_model("resnet8", path)(torch.from_numpy(frames).permute(0, 3, 1, 2)).numpy()
    assert relative_difference(ours, theirs.predict(frames, verbose=0)) < 1e-4


def test_a_classifier_of_every_pixel_is_refused(keras: Any, tmp_path: Path) -> None:
    tiny(keras, pooled=same).save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match="describes a model without GlobalAveragePooling2D, which resnet8 has"):
        load_model("resnet8", tmp_path / "model.keras")


def test_weights_alone_say_nothing(keras: Any, tmp_path: Path) -> None:
    tiny(keras, front=scaled).save_weights(tmp_path / "model.weights.h5")
    assert load_model("resnet8", tmp_path / "model.weights.h5").classes == 10


@pytest.mark.parametrize("kind", TRAINING_ONLY)
def test_layers_for_training_alone_change_nothing_in_inference(kind: str, keras: Any, frames: Any) -> None:
    factors = {"RandomFlip": (), "ActivityRegularization": (), "RandomTranslation": (0.5, 0.5)}.get(kind, (0.5,))
    layer = getattr(keras.layers, kind)(*factors)
    assert np.array_equal(keras.ops.convert_to_numpy(layer(frames, training=False)), frames)


@pytest.mark.parametrize(
    "description", [b"{", b"[]", b'{"config": 3}', b'{"class_name": "A", "config": {"layers": 1}}']
)
def test_a_description_that_is_none(description: bytes, keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    tiny(keras).save(path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = description
    with pytest.raises(ModelError, match="describes its model as Keras does not: save it again, or its weights alone"):
        load_model("resnet8", path)


def test_a_description_that_keras_2_wrote(keras: Any, tmp_path: Path) -> None:
    """There the class was Model, shapes had another key, and the text was bytes."""
    for activation in ("softmax", "sigmoid"):
        tiny(keras, pooled=average_of_all, activation=activation).save(tmp_path / f"{activation}.h5")
        with h5py.File(tmp_path / f"{activation}.h5", "a") as file:
            text = str(file.attrs["model_config"]).replace('"batch_shape"', '"batch_input_shape"')
            file.attrs["model_config"] = np.bytes_(text.replace('"Functional"', '"Model"').encode())
    assert load_model("resnet8", tmp_path / "softmax.h5").classes == 10
    with pytest.raises(ModelError, match=r"has the layer 'dense\w*' \(sigmoid\)"):
        load_model("resnet8", tmp_path / "sigmoid.h5")


def test_a_model_that_does_not_list_its_layers_is_refused(keras: Any, tmp_path: Path) -> None:
    """As a subclass of keras.Model, whose call may do anything."""
    tiny(keras).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(tmp_path / "own.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Mine", "config": {"name": "mine"}}))
        archive.writestr("model.weights.h5", weights)
    with pytest.raises(ModelError, match=r"own.keras has the layer 'mine' \(Mine\)"):
        load_model("resnet8", tmp_path / "own.keras")


# --- networks of keras.applications inside other models -------------------------------------------------------------


@pytest.fixture(scope="module")
def base(keras: Any) -> Any:
    return keras.applications.ResNet50V2(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))


def functional(keras: Any, base: Any, front: Any, pooled: Any, activation: str) -> Any:
    images = keras.Input((SIDE, SIDE, 3))
    features = pooled(keras, base(front(keras, images), training=False))
    return keras.Model(images, keras.layers.Dense(4, name="predictions", activation=activation)(features))


def flattened(keras: Any, x: Any) -> Any:
    return keras.layers.Flatten()(x)


@pytest.mark.parametrize("pooled", [dropped_out, flattened])
def test_a_network_inside_another_model_is_taken(
    pooled: Any, keras: Any, base: Any, frames: Any, tmp_path: Path
) -> None:
    theirs, path = functional(keras, base, augmented, pooled, "softmax"), tmp_path / "model.keras"
    theirs.save(path)
    found = probabilities(path, "resnet50v2", frames)
    assert np.abs(found - theirs.predict(frames, verbose=0)).max() < 1e-4


@pytest.mark.parametrize(
    ("front", "pooled", "activation", "layer"),
    [
        (scaled, global_average, "softmax", "Rescaling"),
        (same, global_maximum, "softmax", "GlobalMaxPooling2D"),
        (same, global_average, "sigmoid", "sigmoid"),
    ],
)
def test_what_stands_around_a_network_inside_another_model(
    front: Any, pooled: Any, activation: str, layer: str, keras: Any, base: Any, tmp_path: Path
) -> None:
    functional(keras, base, front, pooled, activation).save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=rf"has the layer '\w+' \({layer}\) and resnet50v2 has not"):
        load_model("resnet50v2", tmp_path / "model.keras")


def test_a_sequential_model(keras: Any, base: Any, tmp_path: Path) -> None:
    layers = keras.layers
    head = [layers.GlobalMaxPooling2D(), layers.Dense(4, name="predictions")]
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), base, *head]).save(tmp_path / "model.h5")
    with pytest.raises(ModelError, match=r"'global_max_pooling2d\w*' \(GlobalMaxPooling2D\)"):
        load_model("resnet50v2", tmp_path / "model.h5")
    assert load_model("resnet50v2", tmp_path / "model.h5", head="max").features == 2048
