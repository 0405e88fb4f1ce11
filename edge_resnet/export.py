"""Torch ResNet → FP32 ONNX that takes uint8 camera frames.

torch's own exporters cannot write this graph: the current one stops at opset 18 (its converter has no way down to 17,
which TensorRT 8.5 and 8.6 need), the older one is deprecated and names folded weights by number. A ResNet is ten kinds
of module, so the graph is traced with ``torch.fx`` and each module is written by one function from a table. Every node
and tensor is named by its torch module: ``layer1.0.conv1`` reads ``layer1.0.conv1.weight``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from edge_resnet.calibration.simulate import exact_session
from edge_resnet.errors import ModelError
from edge_resnet.graph_writer import IR_VERSION, OPSET
from edge_resnet.graph_writer import Writer as _Writer
from edge_resnet.graph_writer import write_normalisation as _write_normalisation
from edge_resnet.models import Add, EvenConv2d, ResNet, ZeroPadShortcut
from edge_resnet.onnx_file import FEATURES, LOGITS, Metadata, write_metadata
from edge_resnet.preprocessing import Preprocessing


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    return tensor.detach().to(torch.float32).cpu().numpy()


def _conv(writer: _Writer, name: str, module: nn.Conv2d, inputs: Sequence[str]) -> str:
    weights = [writer.weight(f"{name}.weight", _array(module.weight))]
    if module.bias is not None:
        weights.append(writer.weight(f"{name}.bias", _array(module.bias)))
    return writer.node(
        "Conv",
        name,
        [*inputs, *weights],
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=_pads(module),
        dilations=list(module.dilation),
        group=module.groups,
    )


def _pads(module: nn.Conv2d) -> list[int]:
    """Above, left, below and right."""
    if isinstance(module, EvenConv2d) and module.stride != (1, 1):
        after = max(0, module.kernel_size[0] - 2)
        return [0, 0, after, after]
    return [int(p) for p in module.padding] * 2


def _linear(writer: _Writer, name: str, module: nn.Linear, inputs: Sequence[str]) -> str:
    weight = writer.weight(f"{name}.weight", _array(module.weight))
    bias = writer.weight(f"{name}.bias", _array(module.bias))
    return writer.node("Gemm", name, [*inputs, weight, bias], transB=1)


def _side(value: int | tuple[int, int]) -> int:
    return value if isinstance(value, int) else value[0]


def _max_pool(writer: _Writer, name: str, module: nn.MaxPool2d, inputs: Sequence[str]) -> str:
    kernel, stride, padding = _side(module.kernel_size), _side(module.stride), _side(module.padding)
    return writer.node("MaxPool", name, inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4)


def _average_pool(writer: _Writer, name: str, module: nn.AvgPool2d, inputs: Sequence[str]) -> str:
    return writer.node(
        "AveragePool",
        name,
        inputs,
        kernel_shape=[_side(module.kernel_size)] * 2,
        strides=[_side(module.stride)] * 2,
        ceil_mode=int(module.ceil_mode),
        count_include_pad=int(module.count_include_pad),
    )


def _zero_pad(writer: _Writer, name: str, module: nn.ZeroPad2d, inputs: Sequence[str]) -> str:
    left, right, top, bottom = module.padding
    pads = writer.weight(f"{name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    return writer.node("Pad", name, [*inputs, pads, writer.weight(f"{name}.zero", np.array(0, np.float32))])


def _batch_norm(writer: _Writer, name: str, module: nn.BatchNorm2d, inputs: Sequence[str]) -> str:
    """A BatchNorm that no convolution can take in: V2 has them in front of its convolutions."""
    mean, variance = _statistics(module)
    parts = {"weight": module.weight, "bias": module.bias, "running_mean": mean, "running_var": variance}
    constants = [writer.weight(f"{name}.{part}", _array(value)) for part, value in parts.items()]
    return writer.node("BatchNormalization", name, [*inputs, *constants], epsilon=module.eps)


def _statistics(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    if norm.running_mean is None or norm.running_var is None:
        raise ModelError("a BatchNorm has no running statistics: train with track_running_stats=True")
    if (norm.running_var < 0).any():
        raise ModelError("a BatchNorm has a negative running variance, which gives NaN: the checkpoint is damaged")
    return norm.running_mean, norm.running_var


def _zero_pad_shortcut(writer: _Writer, name: str, module: ZeroPadShortcut, inputs: Sequence[str]) -> str:
    def indices(part: str, *values: int) -> str:
        return writer.weight(f"{name}.{part}", np.array(values, np.int64))

    end = np.iinfo(np.int64).max
    sampled = writer.node(
        "Slice",
        f"{name}.subsample",
        [
            *inputs,
            indices("starts", 0, 0),
            indices("ends", end, end),
            indices("axes", 2, 3),
            indices("steps", module.stride, module.stride),
        ],
    )
    pads = indices("pads", 0, module.before, 0, 0, 0, module.after, 0, 0)
    return writer.node("Pad", name, [sampled, pads, writer.weight(f"{name}.zero", np.array(0, np.float32))])


def _passed_on(writer: _Writer, name: str, module: nn.Module, inputs: Sequence[str]) -> str:
    return inputs[0]


def _plain(kind: str) -> Callable[[_Writer, str, Any, Sequence[str]], str]:
    return lambda writer, name, module, inputs: writer.node(kind, name, inputs)


_WRITERS: dict[type[nn.Module], Callable[[_Writer, str, Any, Sequence[str]], str]] = {
    nn.Conv2d: _conv,
    EvenConv2d: _conv,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.ZeroPad2d: _zero_pad,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _plain("Relu"),
    nn.AdaptiveAvgPool2d: _plain("GlobalAveragePool"),
    nn.AdaptiveMaxPool2d: _plain("GlobalMaxPool"),
    nn.Flatten: _plain("Flatten"),
    nn.Identity: _passed_on,
    Add: _plain("Add"),
    ZeroPadShortcut: _zero_pad_shortcut,
}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _WRITERS or super().is_leaf_module(m, module_qualified_name)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution that equals ``conv`` followed by ``norm``, computed in float64."""
    folded = copy.deepcopy(conv)
    mean, variance = _statistics(norm)
    folded.weight, folded.bias = fuse_conv_bn_weights(
        conv.weight.double(),
        None if conv.bias is None else conv.bias.double(),
        mean.double(),
        variance.double(),
        norm.eps,
        norm.weight.double(),
        norm.bias.double(),
    )
    return folded


def _write_network(writer: _Writer, model: ResNet, source: str) -> str:
    """Writes the traced network, reading the tensor ``source``; returns the name of its output."""
    graph = _Tracer().trace(model)
    tensors: dict[fx.Node, str] = {}
    for node in graph.nodes:
        inputs = [tensors[n] for n in node.all_input_nodes]
        if node.op == "placeholder":
            tensors[node] = source
        elif node.op == "output":
            return inputs[0]
        else:
            tensors[node] = _write_module(writer, model, node, inputs)
    raise ModelError("the model has no output")


def _write_module(writer: _Writer, model: ResNet, node: fx.Node, inputs: list[str]) -> str:
    name = str(node.target)
    module = model.get_submodule(name) if node.op == "call_module" else node.target
    if not isinstance(module, nn.Module) or type(module) not in _WRITERS:
        what = type(module).__name__ if isinstance(module, nn.Module) else getattr(module, "__name__", name)
        raise ModelError(f"input_tensor holds {what}, which is not exported: build it of {_names(_WRITERS)}")
    if isinstance(module, nn.BatchNorm2d) and _norm_behind(model, node.all_input_nodes[0]) is module:
        return inputs[0]  # the convolution before it has taken it in
    norm = _norm_behind(model, node)
    if isinstance(module, nn.Conv2d) and norm is not None:
        module = _folded(module, norm)
    return _WRITERS[type(module)](writer, name, module, inputs)


def _names(kinds: Iterable[type[nn.Module]]) -> str:
    return ", ".join(kind.__name__ for kind in kinds if kind.__module__.startswith("torch"))


def _norm_behind(model: ResNet, node: fx.Node) -> nn.BatchNorm2d | None:
    """The BatchNorm that alone reads a convolution's output; None for any other node."""
    users = [user for user in node.users if user.op == "call_module"]
    if len(users) != 1 or node.op != "call_module" or not isinstance(model.get_submodule(str(node.target)), nn.Conv2d):
        return None
    following = model.get_submodule(str(users[0].target))
    return following if isinstance(following, nn.BatchNorm2d) else None


def export_onnx(model: ResNet, preprocessing: Preprocessing, labels: Sequence[str] | None = None) -> onnx.ModelProto:
    """Writes a network as FP32 ONNX, opset 17: frames uint8 batch×H×W×C in, logits float32 batch×classes out.

    A feature extractor's output is ``features``, batch×channels or batch×channels×h×w. BatchNorm is folded, the batch is
    dynamic, and the arithmetic half of the preprocessing (scale, mean, std) is part of the graph. The whole preprocessing
    spec, the labels and the architecture's name travel in the metadata.

    Raises:
        ModelError: channels, size or labels do not fit the model.
    """
    if preprocessing.channels != model.channels:
        raise ModelError(
            f"the model takes {model.channels} channels, the preprocessing makes {preprocessing.channels}: "
            f"set color (rgb, bgr or gray) to what the model was trained on"
        )
    if model.size not in (None, preprocessing.size):
        raise ModelError(f"the model takes images of {model.size}, the preprocessing makes {preprocessing.size}")
    _check_size(model, preprocessing.size)
    if labels is not None and model.classes is None:
        raise ModelError("labels are for a classifier, and this network gives features: leave them out")
    if labels is not None and len(labels) != model.classes:
        raise ModelError(f"{len(labels)} labels for {model.classes} classes: give one label a class")
    writer = _Writer()
    answer = _write_network(writer, model, _write_normalisation(writer, "frames", preprocessing))
    height, width = preprocessing.size
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", height, width, model.channels])
    metadata = Metadata(model.architecture.name, preprocessing, None if labels is None else tuple(labels), None)
    return _finished(writer, frames, _output(writer, model, answer, preprocessing.size), model, metadata)


def export_float_onnx(model: ResNet, size: tuple[int, int]) -> onnx.ModelProto:
    """Writes a network for other tools: normalised float32 batch×C×H×W in, logits out, no preprocessing inside."""
    _check_size(model, size)
    writer = _Writer()
    answer = _write_network(writer, model, "images")
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", model.channels, *size])
    metadata = Metadata(model.architecture.name, None, None, None)
    return _finished(writer, images, _output(writer, model, answer, size), model, metadata)


def _check_size(model: ResNet, size: tuple[int, int]) -> None:
    if min(size) < model.architecture.least_side:
        raise ModelError(
            f"the input's size is {size[0]}×{size[1]}: {model.architecture.name} takes height and width of at least "
            f"{model.architecture.least_side}"
        )


def _output(writer: _Writer, model: ResNet, answer: str, size: tuple[int, int]) -> onnx.ValueInfoProto:
    """Gives the network's answer its public name: ``logits`` or ``features``."""
    public = FEATURES if model.classes is None else LOGITS
    for node in writer.nodes:
        node.input[:] = [public if name == answer else name for name in node.input]
        node.output[:] = [public if name == answer else name for name in node.output]
    with torch.no_grad():
        shape = model(torch.zeros(1, model.channels, *size)).shape[1:]
    return helper.make_tensor_value_info(public, TensorProto.FLOAT, ["batch", *shape])


def _finished(
    writer: _Writer,
    source: onnx.ValueInfoProto,
    output: onnx.ValueInfoProto,
    model: ResNet,
    metadata: Metadata,
) -> onnx.ModelProto:
    graph = helper.make_graph(writer.nodes, model.architecture.name, [source], [output], writer.weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    proto.producer_name = "edge-resnet"
    write_metadata(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def max_abs_error(model: ResNet, exported: onnx.ModelProto, preprocessing: Preprocessing | None) -> float:
    """The largest difference between torch's answers and ONNX Runtime's, on two random frames and two flat ones.

    Args:
        model: the torch network.
        exported: what ``export_onnx`` made of it; or, with ``preprocessing`` None, ``export_float_onnx``.
        preprocessing: the spec that was exported.

    Raises:
        ModelError: torch itself answers NaN or infinity.
    """
    shape = [dim.dim_value for dim in exported.graph.input[0].type.tensor_type.shape.dim][1:]
    random = np.random.default_rng(0)
    session = exact_session(exported)
    name = session.get_inputs()[0].name
    if exported.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT or preprocessing is None:
        images = random.standard_normal((2, *shape), np.float32)
        fed, normalised = images, torch.from_numpy(images)
    else:
        flat = np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)])
        fed = np.concatenate([random.integers(0, 256, (2, *shape), np.uint8), flat])
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        normalised = (torch.from_numpy(fed).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        wanted = model(normalised).numpy()
    if not np.isfinite(wanted).all():
        raise ModelError("the network answers NaN or infinity to plain frames: take another checkpoint of it")
    return float(np.abs(session.run(None, {name: fed})[0] - wanted).max())
