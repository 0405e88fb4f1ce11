"""Foreign FP32 ONNX → the form that ``edge_resnet.export`` writes.

The graph work is that of the libraries that define it: onnx's version converter brings older opsets up and its shape
inference finds the shapes, and ONNX Runtime's basic optimisation folds constants, shape arithmetic, BatchNorm, Mul and
Add behind a convolution, Pad before one, and moves Transposes until they cancel. What is left for us are the ends of the
network, its batch, and a few operators under other names. The result is then run beside the original.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper
from onnx_ir.passes.common import RemoveInitializersFromInputsPass, RemoveUnusedNodesPass

from edge_resnet.adoption.head import Image, cut_closing_softmax, flat_answer, image_input, is_map
from edge_resnet.adoption.operators import check_operators, check_shapes, check_source
from edge_resnet.adoption.rewrites import (
    additions,
    bare_pads,
    explicit_pads,
    explicit_splits,
    free_batch,
    global_pools,
    lower_opset,
    name_nodes,
    no_casts,
    own_constants,
    single_precision,
    valid_pads,
)
from edge_resnet.calibration.simulate import exact_session
from edge_resnet.errors import ModelError
from edge_resnet.graph_writer import IR_VERSION, OPSET, Writer, write_normalisation
from edge_resnet.onnx_file import FEATURES, LOGITS, Metadata, write_metadata
from edge_resnet.preprocessing import Preprocessing

OLDEST_OPSET = 11
TOLERANCE = 1e-4
"""Largest difference of a logit from the original's, over the largest logit."""
FOLDED_BATCH = 2
"""The batch at which a network that takes any is folded: a number that is not taken for an axis of one."""
_RESERVED = ("frames", LOGITS, FEATURES)
_RESERVED_PREFIX = "preprocessing."
_Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Adopted:
    """A foreign network in our form."""

    model: onnx.ModelProto
    """FP32, opset 17: ``frames`` uint8 batch×H×W×C in, float32 out: ``logits`` batch×classes, or ``features``."""
    changes: tuple[str, ...]
    """What is not as it was, for whoever gave the network."""


def adopt(model: onnx.ModelProto, preprocessing: Preprocessing, name: str, *, features: bool = False) -> Adopted:
    """Makes a foreign network what every later step takes: the same graph each time, for the same versions.

    Args:
        model: FP32 or FP16 ONNX, opset 11 or later, with one float image input N×C×H×W or N×H×W×C and one output of
            class scores or features; left as it is.
        preprocessing: what the network was trained with; it becomes part of the graph and of the metadata.
        name: what messages call it.
        features: whether an output N×C holds features, which nothing in a file tells from class scores. A feature map
            N×C×h×w says so itself.

    Raises:
        ModelError: the network cannot be taken. The message names the node, operator, shape or figure that is why.
    """
    try:
        return _adopted(model, preprocessing, name, features=features)
    except ir.serde.SerdeError as error:  # tensors and attributes that say other sizes or types than they have
        raise ModelError(f"{name} is damaged, its graph contradicts itself: export it again") from error


def _adopted(model: onnx.ModelProto, preprocessing: Preprocessing, name: str, *, features: bool) -> Adopted:
    check_source(model, name)
    image = image_input(model, preprocessing, name)
    source = ir.from_proto(_without_shapes(model))
    RemoveInitializersFromInputsPass()(source)
    name_nodes(source.graph)
    halves = single_precision(source)
    valid_pads(source.graph)
    whole = ir.to_proto(source)
    softmax = cut_closing_softmax(source.graph, name)
    original = ir.to_proto(source)
    batch = image.batch or FOLDED_BATCH
    network = _rewritten(_folded(original, image, batch, preprocessing, name), batch, name)
    of_features = features or is_map(network.graph)
    if of_features and softmax is not None:
        raise ModelError(f"{name} ends in the Softmax '{softmax}', so it gives no features: export it without its top")
    made = _finished(network, preprocessing, name, FEATURES if of_features else LOGITS)
    found = _answers(made, preprocessing, name)
    _compare(found, _original_answers(original, image, batch, preprocessing, name), name)
    if softmax is not None:
        _compare_classes(found, _original_answers(whole, image, batch, preprocessing, name), softmax, name)
    changes = {
        f"removed the closing Softmax '{softmax}': the result gives logits": softmax is not None,
        "turned float16 weights into float32, exactly": halves,
        f"made the batch, which was fixed at {image.batch}, any": image.batch is not None,
        f"brought opset {_opset(model)} to {OPSET}": _opset(model) != OPSET,
        "took its output, a map of more than one pixel, for features": of_features and not features,
    }
    return Adopted(made, tuple(change for change, happened in changes.items() if happened))


def _without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that claims nothing of the tensors inside: what a file says of them may be of another type or batch."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    return copied


def _opset(model: onnx.ModelProto) -> int:
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _folded(
    original: onnx.ModelProto, image: Image, batch: int, preprocessing: Preprocessing, name: str
) -> onnx.ModelProto:
    """The network with N×C×H×W in, all of it fixed, upgraded to our opset if older, and folded by ONNX Runtime."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(original)
    fixed.ir_version = max(fixed.ir_version, IR_VERSION)
    graph = fixed.graph
    source = image.name
    if image.channels_last:
        source = f"{image.name}.channels_first"
        node = helper.make_node("Transpose", [source], [image.name], name=source, perm=[0, 2, 3, 1])
        graph.node.insert(0, node)
    shape = [batch, preprocessing.channels, *preprocessing.size]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(source, TensorProto.FLOAT, shape))
    graph.output[0].type.tensor_type.ClearField("shape")
    if _opset(original) < OLDEST_OPSET:
        raise ModelError(f"{name} has opset {_opset(original)}: export it with {OLDEST_OPSET} or later, best {OPSET}")
    try:
        if _opset(original) < OPSET:
            fixed = onnx.version_converter.convert_version(fixed, OPSET)
    except Exception as error:  # the converter raises RuntimeError, and others that protobuf has
        raise ModelError(
            f"{name} cannot be brought from opset {_opset(original)} to {OPSET}: {_one_line(error)}: export with {OPSET}"
        ) from error
    return _optimised(_refoldable(_optimised(fixed, name), name), name)


def _refoldable(folded: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The same in the operators and the opset that folding knows best.

    Raises:
        ModelError: an operator is not supported, or needs a later opset.
    """
    network = ir.from_proto(_with_shapes(folded, name))
    no_casts(network.graph)
    bare_pads(network.graph)
    additions(network.graph)
    global_pools(network.graph)
    check_operators(network.graph, name)
    explicit_splits(network.graph)
    lower_opset(network, name)
    return _without_shapes(ir.to_proto(network))


def _optimised(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(place)
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a class of its own for each status, with no common base
            raise ModelError(f"{name} is refused by ONNX Runtime: {_one_line(error)}") from error
        return onnx.load(place)


def _rewritten(folded: onnx.ModelProto, batch: int, name: str) -> ir.Model:
    """The folded network with explicit pads, a flat answer, a free batch, and constants of their own for its layers."""
    network = ir.from_proto(_with_shapes(folded, name))
    check_shapes(network.graph, name)
    explicit_pads(network.graph)
    flat_answer(network.graph, name)
    free_batch(network.graph, batch)
    own_constants(network.graph)
    RemoveUnusedNodesPass()(network)
    return network


def _with_shapes(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(
            _without_shapes(model), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:  # InferenceError is no common base of what protobuf raises
        raise ModelError(f"{name}: {_one_line(error)}: export it again") from error


def _finished(network: ir.Model, preprocessing: Preprocessing, name: str, answer: str) -> onnx.ModelProto:
    """Preprocessing in front, names of ours at both ends, any batch."""
    graph = network.graph
    source, scores = graph.inputs[0], graph.outputs[0]
    writer = Writer()
    image = write_normalisation(writer, "frames", preprocessing)
    _rename(graph)
    source.name, scores.name = image, answer
    assert scores.shape is not None  # checked with the operators
    shape: list[str | int | None] = ["batch", *(int(length) for length in list(scores.shape)[1:])]  # type: ignore[arg-type]  # and numbers
    body = ir.to_proto(network).graph
    frames = helper.make_tensor_value_info(
        "frames", TensorProto.UINT8, ["batch", *preprocessing.size, preprocessing.channels]
    )
    answers = helper.make_tensor_value_info(answer, TensorProto.FLOAT, shape)
    made = helper.make_model(
        helper.make_graph(
            [*writer.nodes, *body.node], "adopted", [frames], [answers], [*writer.weights, *body.initializer]
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    made.producer_name = "edge-resnet"
    write_metadata(made, Metadata(None, preprocessing, None, None))
    _check_batch(made, name)
    return made


def _rename(graph: ir.Graph) -> None:
    """Frees the names that are ours."""
    values = [*graph.initializers.values(), *(output for node in graph for output in node.outputs)]
    taken = {str(value.name) for value in values}
    for value in values:
        while str(value.name) in _RESERVED or str(value.name).startswith(_RESERVED_PREFIX):
            value.name = f"network.{value.name}"
            while value.name in taken:
                value.name += "_"
    for node in graph:
        if str(node.name).startswith(_RESERVED_PREFIX):
            node.name = f"network.{node.name}"


def _check_batch(model: onnx.ModelProto, name: str) -> None:
    """Refuses a graph in which a node fixes the batch.

    Raises:
        ModelError: such a node, or one that the ONNX checker refuses.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and protobuf raise unrelated classes
        raise ModelError(f"{name}: {_one_line(error)}: export it again with opset {OPSET}") from error
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.value_info}
    for node in model.graph.node:
        for output in node.output:
            if output in shapes and len(shapes[output]) and shapes[output][0].HasField("dim_value"):
                raise ModelError(
                    f"{name}: node '{node.name}' ({node.op_type}) fixes the batch at {shapes[output][0].dim_value}: "
                    f"export with a dynamic batch"
                )


def _answers(made: onnx.ModelProto, preprocessing: Preprocessing, name: str) -> _Float:
    """The adopted network's answers to the test frames, a row each, run at batch 1 and 3.

    Raises:
        ModelError: it does not run at both, or does not give each image its own answer.
    """
    frames, session = _frames(preprocessing), exact_session(made)
    try:
        parts = [session.run(None, {"frames": part})[0] for part in (frames[:1], frames[1:])]
    except Exception as error:  # onnxruntime raises a class of its own for each status, with no common base
        raise ModelError(f"{name} does not run at batch 1 and 3: {_one_line(error)}") from error
    if [part.shape[:1] for part in parts] != [(1,), (3,)] or any(part.ndim not in (2, 4) for part in parts):
        raise ModelError(f"{name} does not give each image of a batch its own scores: export it with a dynamic batch")
    return np.concatenate(parts).reshape(len(frames), -1)


def _compare(found: _Float, wanted: _Float, name: str) -> None:
    """Holds scores N×classes against the original's.

    Raises:
        ModelError: they differ, or the original's are no numbers.
    """
    if not np.isfinite(wanted).all():
        raise ModelError(f"{name} gives NaN or infinite scores on test frames: export a trained network in eval mode")
    difference = float(np.abs(found - wanted).max()) / (float(np.abs(wanted).max()) or 1.0)
    if difference > TOLERANCE:
        raise ModelError(
            f"{name} answers otherwise in our form, by {difference:.2g} of its largest score where {TOLERANCE:g} is "
            f"allowed: export it in eval mode with opset {OPSET}"
        )


def _compare_classes(found: _Float, wanted: _Float, softmax: str, name: str) -> None:
    """Holds the softmax of logits against what the original's own Softmax, or its logarithm, gave.

    Raises:
        ModelError: it was no Softmax over the classes.
    """
    scores = np.exp(found - found.max(1, keepdims=True))
    probabilities = scores / scores.sum(1, keepdims=True)
    given = np.exp(wanted) if wanted.max() <= 0 else wanted
    if np.abs(probabilities - given).max() > TOLERANCE:
        raise ModelError(f"{name} ends in '{softmax}', which is no Softmax over the classes: export it without")


def _frames(preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Four frames N×H×W×C."""
    (height, width), channels = preprocessing.size, preprocessing.channels
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (2, height, width, channels), np.uint8)
    slope = np.linspace(0, 255, height * width * channels).reshape(1, height, width, channels).astype(np.uint8)
    return np.concatenate([noise, slope, np.full_like(slope, 200)])


def _original_answers(
    original: onnx.ModelProto,
    image: Image,
    batch: int,
    preprocessing: Preprocessing,
    name: str,
) -> _Float:
    """The original's scores of the test frames, image by image; the other places of its batch hold the same image."""
    mean, std = (np.array(values, np.float64) for values in (preprocessing.mean, preprocessing.std))
    pixels = ((_frames(preprocessing) / 255 - mean) / std).astype(np.float32)
    if not image.channels_last:
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    session = exact_session(original)
    try:
        answers = [session.run(None, {image.name: np.repeat(each[np.newaxis], batch, 0)})[0] for each in pixels]
    except Exception as error:  # as above
        raise ModelError(f"{name} does not run: {_one_line(error)}") from error
    return np.stack([answer[0].reshape(-1) for answer in answers])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
