"""ONNX files: metadata comes back as it went in, and what is no network of ours is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_resnet.errors import ModelError
from edge_resnet.export import export_float_onnx, export_onnx
from edge_resnet.models import create_model
from edge_resnet.onnx_file import (
    PREPROCESSING_KEY,
    Metadata,
    check_fp32,
    load_onnx,
    read_metadata,
    save_onnx,
    write_metadata,
)
from edge_resnet.preprocessing import NAMED, Color, Crop, Interpolation, Preprocessing

LABELS = ("Katze", "кошка", "猫", 'a "quoted" name', "")
SPECS = [
    *NAMED.values(),
    Preprocessing((20, 30), 45, Crop.CENTER, Interpolation.LANCZOS, Color.BGR, (0.1, 0.2, 0.3), (1.0, 0.5, 0.25)),
]


@pytest.mark.parametrize("preprocessing", SPECS)
def test_metadata_goes_through_a_file_and_back(preprocessing: Preprocessing, tmp_path: Path) -> None:
    model = create_model("resnet20", classes=len(LABELS), channels=preprocessing.channels)
    save_onnx(export_onnx(model, preprocessing, LABELS), tmp_path / "model.onnx")
    found = read_metadata(load_onnx(tmp_path / "model.onnx"), "model.onnx")
    assert found == Metadata("resnet20", preprocessing, LABELS, None)


def test_silence_comes_back_as_silence() -> None:
    model = export_float_onnx(create_model("resnet20"), (32, 32))
    assert read_metadata(model, "model") == Metadata("resnet20", None, None, None)
    calibration = {"method": "mse", "sha256": ["00", "11"]}
    write_metadata(model, Metadata(None, None, None, calibration))
    assert read_metadata(model, "model") == Metadata(None, None, None, calibration)


def test_damaged_metadata_is_refused(demo_onnx: Path) -> None:
    model = load_onnx(demo_onnx)
    next(entry for entry in model.metadata_props if entry.key == PREPROCESSING_KEY).value = '{"size": [28'
    with pytest.raises(ModelError, match="^demo.onnx: damaged metadata .*: export the model again$"):
        read_metadata(model, "demo.onnx")


def test_the_same_model_gives_the_same_bytes(demo_onnx: Path, tmp_path: Path) -> None:
    save_onnx(load_onnx(demo_onnx), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == demo_onnx.read_bytes()


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_fp32(load_onnx(path), str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_no_onnx(demo_onnx: Path, tmp_path: Path) -> None:
    assert "no ONNX file at" in refusal(tmp_path / "missing.onnx")
    assert "no ONNX file at" in refusal(tmp_path)
    damaged = tmp_path / "damaged.onnx"
    whole = demo_onnx.read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2], whole[:-1]):
        damaged.write_bytes(data)
        assert "is no valid ONNX model" in refusal(damaged)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "w.pth",
            "a checkpoint by its name: make ONNX of it with `edge-resnet export --arch ARCH --weights {} -o F.onnx`",
        ),
        (
            "w.safetensors",
            "a checkpoint by its name: make ONNX of it with `edge-resnet export --arch ARCH --weights {}",
        ),
        ("my.TOML", "a recipe by its name: build it with `edge-resnet build {}`, and give the bundle"),
        ("t.json", "a calibration table by its name: give the ONNX that it belongs to"),
    ],
)
def test_a_file_of_another_kind_is_told_where_it_belongs(
    demo_onnx: Path, tmp_path: Path, name: str, advice: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"text")
    assert f"{path} is no ONNX model, but {advice.format(path)}" in refusal(path)
    path.write_bytes(demo_onnx.read_bytes())
    assert load_onnx(path) == load_onnx(demo_onnx), "what a file holds counts for more than its name"


def test_nodes_in_another_order_are_told_in_words(demo_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(demo_onnx)
    model.graph.node.append(model.graph.node.pop(0))
    (tmp_path / "disorder.onnx").write_bytes(model.SerializeToString())
    assert refusal(tmp_path / "disorder.onnx").endswith(
        "disorder.onnx is no valid ONNX model: its nodes are not in the order of computation, as a conversion to "
        "float16 may leave them: export it again"
    )


def test_a_network_that_takes_floats_is_refused(tmp_path: Path) -> None:
    save_onnx(export_float_onnx(create_model("resnet20"), (32, 32)), tmp_path / "float.onnx")
    assert "does not take uint8 frames: `edge-resnet calibrate` and `quantize` bring it into that form" in refusal(
        tmp_path / "float.onnx"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, demo_onnx: Path, tmp_path: Path) -> None:
    model = load_onnx(demo_onnx)
    weight = next(w for w in model.graph.initializer if w.name == "layer2.1.conv1.weight")
    values = numpy_helper.to_array(weight).copy()
    values[3, 2, 1, 0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    assert "'layer2.1.conv1.weight' has NaN or infinite values" in refusal(tmp_path / "nan.onnx")


def test_a_quantized_network_is_not_taken_for_fp32(tmp_path: Path) -> None:
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", 4, 4, 1])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4, 4, 1])
    node = helper.make_node("DequantizeLinear", ["frames", "scale", "zero"], ["logits"])
    constants = [numpy_helper.from_array(np.float32(1), "scale"), numpy_helper.from_array(np.uint8(0), "zero")]
    graph = helper.make_graph([node], "q", [frames], [logits], constants)
    save_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "q.onnx")
    load_onnx(tmp_path / "q.onnx")
    assert "is quantized already: give the FP32 ONNX that it was made from" in refusal(tmp_path / "q.onnx")
