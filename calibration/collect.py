"""FP32 ONNX + frames → CalibrationTable, streaming: the statistics of two batches in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_resnet.calibration.observers import Observer, TensorRange, observer_named
from edge_resnet.calibration.schemes import SCHEMES
from edge_resnet.calibration.simulate import fast_session
from edge_resnet.calibration.table import CalibrationTable, model_digest
from edge_resnet.calibration.topology import (
    activated,
    convolutions,
    data,
    load_graph,
    rectified_tensors,
    residual_adds,
)
from edge_resnet.errors import CalibrationError

SAMPLE = 1 << 14
"""About how many values of a tensor enter its histogram, of each image; the extremes are of all. On a ResNet-20 a quarter
of its values, and an eighth, gave the same logit SQNR within 0.1 dB."""

Advance = Callable[[int], None]
"""Called with the number of images done since the last call."""


def observed_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors that any scheme may quantize: the first convolution's input, what convolutions, residual
    Adds and max poolings give, behind their ReLU, and whatever else a scheme reads, such as a gated shortcut.
    """
    graph = load_graph(model).graph
    adds = set(residual_adds(graph))
    convs = set(convolutions(graph))
    names: dict[str, None] = {}
    for conv in convolutions(graph):
        names[str(data(conv).name)] = None
    for node in graph:
        if node in convs or node in adds or node.op_type == "MaxPool":
            names[str(activated(node).name)] = None
    for scheme in SCHEMES.values():
        for value in scheme.reads(graph):
            names[scheme.range_name(value)] = None
    return list(names)


def collect(
    model: onnx.ModelProto,
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    method: str,
    images: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    advance: Advance = lambda done: None,
) -> CalibrationTable:
    """Observes every tensor of interest over the frames. While a batch is observed, the next one is computed.

    Args:
        model: FP32 ONNX that takes uint8 frames.
        frames: batches N×H×W×C.
        method: an observer's name.
        images: the image set's manifest, for the table.
        preprocessing: the spec that made the frames, for the table.
        advance: called as images are done.

    Raises:
        CalibrationError: no frames, an unknown method, or a value that is not finite (the tensor is named).
    """
    observer_named(method)  # refuses an unknown one before any work is done
    digest = model_digest(model)  # takes memory for two models, which is there before the session and its tensors are
    network = Observed(model)
    observers = network.observers(method)
    seen, observing = 0, None
    with ThreadPoolExecutor(1) as thread:  # one alone, so that images are observed in their order
        for batch in frames:
            statistics = network.statistics(batch)
            _finish(observing, advance)
            observing = thread.submit(observe, observers, statistics, seen)
            seen += len(batch)
        _finish(observing, advance)
    if seen == 0:
        raise CalibrationError("no calibration images: give at least one")
    return CalibrationTable(method, digest, dict(images), dict(preprocessing), ranges_of(observers))


Observers = dict[str, Observer]
"""One for each tensor of interest, by its name."""


class Observed:
    """A network that gives the statistics of every tensor of interest in the place of its answers.

    Args:
        model: FP32 ONNX that takes uint8 frames.
        threads: that compute; 0: one on each core. The statistics do not depend on it.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 0) -> None:
        self._names = observed_tensors(model)
        self._session = fast_session(_with_statistics(model, self._names), threads)

    def observers(self, method: str) -> Observers:
        """New ones, that have seen nothing.

        Raises:
            CalibrationError: an unknown method.
        """
        make = observer_named(method)
        return {name: make() for name in self._names}

    def statistics(self, batch: npt.NDArray[np.uint8]) -> Sequence[Any]:
        """What ``observe`` takes, of frames N×H×W×C."""
        found: Sequence[Any] = self._session.run(None, {self._session.get_inputs()[0].name: batch})
        return found


def observe(observers: Observers, statistics: Sequence[Any], seen: int) -> int:
    """Observes the statistics of a batch, ``seen`` images before it; returns how many it has.

    Raises:
        CalibrationError: a value is not finite; tensor and image are named.
    """
    for index, (name, observer) in enumerate(observers.items()):
        _observe(observer, name, statistics[2 * index], statistics[2 * index + 1], seen)
    return len(statistics[0])


def merge(observers: Observers, others: Observers) -> None:
    """Adds what other observers of the same network and method have seen.

    Raises:
        CalibrationError: statistics of this method depend on the order of images.
    """
    for name, observer in observers.items():
        observer.merge(others[name])


def ranges_of(observers: Observers) -> dict[str, TensorRange]:
    """The ranges that are chosen of all that has been seen.

    Raises:
        CalibrationError: nothing has.
    """
    return {name: observer.range() for name, observer in observers.items()}


def _finish(observing: Future[int] | None, advance: Advance) -> None:
    """Waits until a batch is observed, and says so; what was wrong with it is raised here."""
    if observing is not None:
        advance(observing.result())


def _observe(observer: Observer, name: str, extremes: Any, samples: Any, seen: int) -> None:
    for index, (ends, sample) in enumerate(zip(extremes, samples, strict=True)):
        try:
            observer.observe(ends, sample)
        except CalibrationError as error:
            raise CalibrationError(f"tensor '{name}', image {seen + index + 1}: {error}") from error


def _with_statistics(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The model with two outputs a tensor: its extremes, N×K×1×1, and a sample of it, N×C×h×w.

    Computed inside the graph, by the runtime's own threads, so that no large tensor ever leaves it, and with operators
    that read ONNX Runtime's blocked layout: to bring every tensor into N×C×H×W costs as much as all else here together.
    The sample is every s-th row and column of every channel, by an average over one value, which keeps a NaN. The
    smallest value is sought where there may be negative ones; behind a ReLU that of the sample will do, as quantizers
    begin at 0 there.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.output[:]
    shapes = _shapes(model)
    rectified = rectified_tensors(load_graph(model).graph)
    for index, name in enumerate(names):
        stat = f"stat.{index}"
        stride = math.ceil(math.sqrt(math.prod(shapes[name][1:]) / SAMPLE))
        pool = helper.make_node("AveragePool", [name], [f"{stat}.sample"], kernel_shape=[1, 1], strides=[stride] * 2)
        graph.node.append(pool)
        if name in rectified:
            graph.node.append(helper.make_node("GlobalMaxPool", [name], [f"{stat}.ends"]))
        else:
            largest, smallest = f"{stat}.max", f"{stat}.min"
            graph.node.append(helper.make_node("GlobalMaxPool", [name], [largest]))
            graph.node.append(helper.make_node("ReduceMin", [name], [smallest], axes=[1, 2, 3]))
            graph.node.append(helper.make_node("Concat", [largest, smallest], [f"{stat}.ends"], axis=1))
        for part in ("ends", "sample"):
            graph.output.append(helper.make_tensor_value_info(f"{stat}.{part}", TensorProto.FLOAT, None))
    return made


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Every tensor's shape. Inference copies the model twice, so it is given one without what the weights hold."""
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    for field in ("node", "input", "output", "value_info"):
        getattr(bare.graph, field).extend(getattr(model.graph, field))
    bare.graph.name = model.graph.name
    for weight in model.graph.initializer:
        kept = bare.graph.initializer.add(name=weight.name, data_type=weight.data_type, dims=weight.dims)
        if weight.data_type == TensorProto.INT64:  # shapes, pads and slices, whose values inference reads
            kept.CopyFrom(weight)
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    return {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*inferred.value_info, *inferred.output)
    }
