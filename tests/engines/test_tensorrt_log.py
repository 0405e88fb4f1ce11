"""Reading an engine's layers off the build log, in the words of TensorRT (CASK) and of TensorRT-RTX (Myelin)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge_resnet.engines._tensorrt_log import inspected_layers, one_line, read_layers
from edge_resnet.engines.engine import Layer


def tensor(kind: str) -> str:
    return (
        f"{{ Name: t, Dimensions: [-1,16,8,8], Strides: [1024,1,128,16], Datatype: {kind}, Format: (NHWC) Channels }}"
    )


def cask_tensor(kind: str) -> str:
    return f"{{ Name: t, Location: Device, Dimensions: [1,16,8,8], Format/Datatype: {kind} }}"


def line(kind: str, *, reads: list[str], constants: list[str], writes: list[str], nodes: str = "") -> str:
    tensors = f"Inputs: [ {', '.join(reads)}], Constants: [ {', '.join(constants)}], Outputs: [ {', '.join(writes)}]"
    return f"Name: x, LayerType: {kind}, {tensors}, TacticName: t, StreamId: 0, Metadata: {nodes}"


def cask_line(kind: str, *, reads: list[str], writes: list[str], rest: str = "") -> str:
    return f"Name: x, LayerType: {kind}, Inputs: [ {', '.join(reads)}], Outputs: [ {', '.join(writes)}], {rest}"


INT8, HALF, FLOAT, UINT8 = tensor("Int8"), tensor("Half"), tensor("Float"), tensor("UInt8")
CASK_INT8 = cask_tensor("Thirty-two wide channel vectorized row major Int8 format")
CASK_HALF = cask_tensor("Channel major FP16 format where channel % 8 == 0")
CASK_FLOAT = cask_tensor("Row major linear FP32")
INT8_WEIGHTS = 'Weights: {"Type": "Int8", "Count": 864}, Bias: {"Type": "Float", "Count": 32}'

MYELIN = {
    "INT8 convolution that writes FP32": (
        "int8",
        line("correlation", reads=[INT8], constants=[INT8, FLOAT], writes=[FLOAT]),
    ),
    "INT8 convolution with an FP16 shortcut": (
        "int8",
        line("correlation", reads=[INT8, HALF], constants=[INT8], writes=[HALF]),
    ),
    "FP16 convolution": ("fp16", line("correlation", reads=[HALF, HALF], constants=[FLOAT], writes=[HALF])),
    "FP16 convolution with INT8 weights": ("fp16", line("correlation", reads=[HALF], constants=[INT8], writes=[HALF])),
    "FP32 convolution with an INT8 shortcut": (
        "fp32",
        line("correlation", reads=[FLOAT, INT8], constants=[], writes=[INT8]),
    ),
    "INT8 matrix product": ("int8", line("gemm", reads=[INT8], constants=[INT8, FLOAT], writes=[FLOAT])),
    "quantises uint8 frames in FP16": ("fp16", line("kgen", reads=[UINT8], constants=[HALF], writes=[INT8])),
    "dequantises and quantises": ("fp32", line("kgen", reads=[FLOAT], constants=[HALF], writes=[INT8])),
    "pools INT8": ("int8", line("kgen", reads=[INT8], constants=[], writes=[INT8])),
}
CASK = {
    "INT8 convolution": (
        "int8",
        cask_line("CaskConvolution", reads=[CASK_INT8], writes=[CASK_INT8], rest=INT8_WEIGHTS),
    ),
    "FP16 convolution": ("fp16", cask_line("CaskConvolution", reads=[CASK_HALF], writes=[CASK_HALF])),
    "FP32 convolution": ("fp32", cask_line("CaskConvolution", reads=[CASK_FLOAT], writes=[CASK_FLOAT])),
    "INT8 matrix product": ("int8", cask_line("CaskGemmConvolution", reads=[CASK_INT8], writes=[CASK_FLOAT])),
    "quantising reformat": ("fp32", cask_line("Reformat", reads=[CASK_FLOAT], writes=[CASK_INT8])),
    "INT8 pooling": ("int8", cask_line("CaskPooling", reads=[CASK_INT8], writes=[CASK_INT8])),
    "short name of a type": ("fp16", cask_line("CaskConvolution", reads=[cask_tensor("Half")], writes=[CASK_FLOAT])),
}


@pytest.mark.parametrize(
    ("precision", "text"), [*MYELIN.values(), *CASK.values()], ids=[*MYELIN, *(f"CASK {name}" for name in CASK)]
)
def test_precision_is_that_of_the_arithmetic(precision: str, text: str) -> None:
    assert read_layers(f"Layers:\n{text}\n") == (Layer("x", precision, ("x",)),)


def test_sources_are_the_onnx_nodes_each_once_and_in_order() -> None:
    nodes = "[ONNX Layer: layer1.0.conv1]\x1e[ONNX Layer: layer1.0.relu][ONNX Layer: layer1.0.conv1]"
    (layer,) = read_layers(line("correlation", reads=[INT8], constants=[], writes=[HALF], nodes=nodes))
    assert layer.sources == ("layer1.0.conv1", "layer1.0.relu")


def test_layers_without_tensors_and_what_is_no_layer_are_left_out() -> None:
    shape_call = "Name: s, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , Metadata: "
    tensors = " Name: frames, IOMode: Input, DataType: UInt8, Dimensions: [-1,32,32,3], Location: Device"
    assert read_layers(f"Layers:\n{shape_call}\n\nI/O Tensors:\n{tensors}\n\nEngine Metadata:\n") == ()


def test_one_line() -> None:
    assert one_line(" a\n\tb  c\n") == "a b c"


def test_without_metadata_the_name_holds_the_nodes() -> None:
    text = cask_line("CaskConvolution", reads=[CASK_INT8], writes=[CASK_INT8], rest="StreamId: 0, Metadata: ")
    (layer,) = read_layers(text.replace("Name: x", "Name: conv1.weight + conv1.weight.quantize + conv1 + relu1", 1))
    assert layer == Layer(
        "conv1.weight + conv1.weight.quantize + conv1 + relu1",
        "int8",
        ("conv1.weight", "conv1.weight.quantize", "conv1", "relu1"),
    )


class Runtime:
    """TensorRT's, of one engine."""

    def __init__(self, logger: object) -> None:
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> object:
        assert self.engine_host_code_allowed
        told = cask_line("CaskConvolution", reads=[CASK_INT8], writes=[CASK_INT8], rest="Metadata: [ONNX Layer: conv1]")
        inspector = SimpleNamespace(get_engine_information=lambda form: f"Layers:\n{told}\n\nBindings:\n{form}")
        return SimpleNamespace(create_engine_inspector=lambda: inspector) if plan == b"plan" else None


def test_an_engine_that_was_not_logged_is_loaded_and_inspected() -> None:
    trt = SimpleNamespace(Runtime=Runtime, LayerInformationFormat=SimpleNamespace(ONELINE="frames"))
    assert read_layers(inspected_layers(trt, None, b"plan")) == (Layer("x", "int8", ("conv1",)),)
    assert inspected_layers(trt, None, b"another") == ""
