"""INT8 by other tools and by this project: the same networks, calibration images and test images.

    python benchmarks/accuracy_vs_peers.py [--env FOLDER] [--images N]

Each tool gets the settings that are best for accuracy, and every calibration image, one at a time:

- ONNX Runtime ``quantize_static``: after ``quant_pre_process``; Q/DQ, UINT8 activations, INT8 weights a channel; min-max,
  entropy and percentile.
- NNCF, ONNX backend: presets ``performance`` (symmetric) and ``mixed``, each as it comes (ranges are the mean of each
  image's extremes, fast bias correction) and with histograms' ranges and accurate bias correction; ``subset_size`` is all
  images; the half range of the first layer, for CPUs without VNNI, is off.
- NVIDIA ModelOpt, ONNX: ``max`` and ``entropy``; what stays float stays FP32.
- This project: ranges of least squared error, then each effort of ``quantize``.

Other tools read float images, normalised as the network wants them; what normalises is cut off before and runs before.
Their environments, of pinned versions, are made in ``--env``, where they are found again.

Two placements. ``own``: the graph as the tool writes it. ``common``: the tool's ranges, weights with their scales, and
biases, in the pairs of the ``tensorrt`` scheme with INT8 and zero point 0: an activation [low, high] gets the larger
magnitude of the two as its range. The last layer stays float there. This project in the common placement leaves the
folding of zero points out, and with it the second half of the integers behind a ReLU.

All graphs are evaluated exactly: FP32 arithmetic on integers, ONNX Runtime's optimisations off. Seconds are those of one
process that reads the FP32 file and writes the quantized one, imports aside; memory is that process' peak (VmHWM),
imports included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from _common import (
    Row,
    Subject,
    Table,
    cifar_resnet20,
    db,
    demo_resnet20,
    demo_resnet20_on_all,
    parser,
    report,
    trained,
)
from _own_worker import RANGES_ALONE, SymmetricScheme
from accuracy_floor import few
from onnx import numpy_helper
from onnx.utils import Extractor

from edge_resnet.accuracy import Logits, Run
from edge_resnet.calibration.observers import TensorRange
from edge_resnet.calibration.qdq import insert_qdq
from edge_resnet.calibration.quantize import EFFORTS
from edge_resnet.calibration.simulate import exact_session, fast_session
from edge_resnet.calibration.table import CalibrationTable, model_digest
from edge_resnet.calibration.topology import (
    convolution_depths,
    convolutions,
    data,
    quantized_sums,
    shortcut_index,
)
from edge_resnet.check import float_run

HERE = Path(__file__).parent
HEADER = ("network", "tool", "placement", "logit SQNR", "agreement", "drop in points, 95 % interval", "seconds", "MB")
ENVIRONMENTS = {
    "nncf": ("nncf==3.4.0", "onnxruntime==1.32.0", "onnx==1.21.0", "sympy==1.14.0"),
    "modelopt": ("nvidia-modelopt[onnx]==0.47.0",),
}
"""What each environment installs."""
TRAINED_HERE = ("resnet56", "resnet50", "resnet18v2")
"""By ``train_networks.py``, on Fashion-MNIST; those that it has not trained yet are left out."""
NETWORKS = ("cifar", "demo", *TRAINED_HERE)
DOWNLOADED = Path.home() / ".cache" / "edge-resnet-peers"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Peer:
    """Another tool in one of its settings."""

    label: str
    tool: str
    """Its name in ``_peers_worker``."""
    environment: str


PEERS = (
    Peer("ONNX Runtime, min-max", "ort-minmax", "nncf"),
    Peer("ONNX Runtime, entropy", "ort-entropy", "nncf"),
    Peer("ONNX Runtime, percentile", "ort-percentile", "nncf"),
    Peer("NNCF, performance", "nncf-performance", "nncf"),
    Peer("NNCF, mixed", "nncf-mixed", "nncf"),
    Peer("NNCF, performance, histograms, accurate biases", "nncf-performance-accurate", "nncf"),
    Peer("NNCF, mixed, histograms, accurate biases", "nncf-mixed-accurate", "nncf"),
    Peer("ModelOpt, max", "modelopt-max", "modelopt"),
    Peer("ModelOpt, entropy", "modelopt-entropy", "modelopt"),
)


@dataclass(frozen=True)
class Own:
    """One effort of this project, in one scheme."""

    effort: str
    scheme: str
    placement: str

    @property
    def label(self) -> str:
        return "edge-resnet, ranges alone" if self.effort == RANGES_ALONE else f"edge-resnet, {self.effort}"


OWN = (
    Own(RANGES_ALONE, SymmetricScheme.name, "common"),
    *(
        Own(effort, scheme, placement)
        for effort in EFFORTS
        for scheme, placement in (("tensorrt", "own, INT8"), (SymmetricScheme.name, "common"))
    ),
    Own("standard", "cpu", "own, UINT8 (CPU)"),
)


@dataclass(frozen=True)
class Made:
    """A quantized model and what it cost."""

    model: onnx.ModelProto
    seconds: float
    megabytes: float


class ToolError(Exception):
    """A tool ended with an error; its last line."""


@dataclass(frozen=True)
class Failure:
    """A tool that could not quantize the network."""

    label: str
    why: str


@dataclass(frozen=True)
class Contest:
    """One line of the table."""

    label: str
    placement: str
    run: Run
    made: Made


# Environments and processes.


def interpreter(root: Path, name: str) -> Path:
    """The Python of an environment, which is made where it is not there yet."""
    folder = root / name
    python, ready = folder / "bin" / "python", folder / "ready"
    wanted = "\n".join(ENVIRONMENTS[name])
    if not ready.is_file() or ready.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]], check=True)
        ready.write_text(wanted)
    return python


def worked(python: Path | str, worker: str, arguments: list[str], made: Path) -> Made:
    """Runs a worker; its last line says what it took."""
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths} if python == sys.executable else dict(os.environ)
    command = [str(python), str(HERE / worker), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        raise ToolError(next(line for line in reversed(done.stderr.splitlines()) if line.strip()))
    cost = json.loads(done.stdout.splitlines()[-1])
    return Made(onnx.load(made), cost["seconds"], cost["megabytes"])


# What a peer found, for the common placement.


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear."""

    scale: Array
    zero_point: Array

    @classmethod
    def of(cls, node: ir.Node) -> Grid:
        return cls(constant(data(node, 1)), constant(data(node, 2)))

    def along(self, ndim: int) -> tuple[Array, Array]:
        """Scale and zero point as they meet a tensor: a channel each along axis 0, or one for all."""
        shape = (-1,) + (1,) * (ndim - 1) if self.scale.size > 1 else ()
        return self.scale.reshape(shape), self.zero_point.astype(np.float64).reshape(shape)

    @property
    def range(self) -> TensorRange:
        """What the integers cover; INT8 with zero point 0 has 127 steps on each side."""
        info = np.iinfo(self.zero_point.dtype)
        scale, zero = float(self.scale.item()), int(self.zero_point.item())
        lowest = -127 if info.min == -128 and zero == 0 else int(info.min)
        low, high = (lowest - zero) * scale, (int(info.max) - zero) * scale
        return TensorRange(low, high, max(-low, high), low, high)


def constant(value: ir.Value) -> Array:
    """A constant tensor, or what Q and DQ make of one."""
    producer = value.producer()
    if producer is None:
        assert value.const_value is not None
        return value.const_value.numpy()
    if producer.op_type == "Constant":
        return producer.attributes["value"].as_tensor().numpy()
    before, grid = constant(data(producer)), Grid.of(producer)
    scale, zero = grid.along(before.ndim)
    if producer.op_type == "DequantizeLinear":
        return np.asarray((before.astype(np.float64) - zero) * scale, np.float32)
    assert producer.op_type == "QuantizeLinear"
    info = np.iinfo(grid.zero_point.dtype)
    return np.clip(np.rint(before / scale) + zero, info.min, info.max).astype(grid.zero_point.dtype)


def dequantizer(value: ir.Value) -> ir.Node:
    producer = value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        raise SystemExit(f"'{value.name}' is not quantized: the tool left this convolution float")
    return producer


def in_common_placement(fp32: onnx.ModelProto, peer: onnx.ModelProto) -> onnx.ModelProto:
    """The network with a peer's ranges, weights and biases, and pairs where ``tensorrt`` has them.

    A shortcut that the peer adds as float stays float.
    """
    theirs = {str(node.name): node for node in ir.from_proto(peer).graph}
    original = ir.from_proto(fp32).graph
    depths = convolution_depths(original)
    values: dict[str, Array] = {}
    ranges: dict[str, TensorRange] = {}
    scales: dict[str, tuple[float, ...]] = {}
    for conv in convolutions(original):
        found, weight = theirs[str(conv.name)], str(data(conv, 1).name)
        values[weight] = constant(data(found, 1))
        steps = Grid.of(dequantizer(data(found, 1))).scale.reshape(-1)
        scales[weight] = tuple(float(step) for step in np.broadcast_to(steps, len(values[weight])))
        ranges[str(data(conv).name)] = Grid.of(dequantizer(data(found))).range
    float_sums = []
    for add in quantized_sums(original):
        theirs_of = [data(theirs[str(add.name)], index).producer() for index in (0, 1)]
        found_ranges = {
            str(data(add, index).name): Grid.of(dq).range
            for index, dq in enumerate(theirs_of)
            if dq is not None and dq.op_type == "DequantizeLinear"
        }
        ranges = {**found_ranges, **ranges}
        if str(data(add, shortcut_index(add, depths)).name) not in ranges:
            float_sums.append(str(add.name))
    for node in original:
        if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2:
            values[str(data(node, 2).name)] = constant(data(theirs[str(node.name)], 2))
    changed = with_constants(fp32, values)
    table = CalibrationTable("peer", model_digest(changed), {}, {}, ranges, scales)
    return insert_qdq(changed, table, SymmetricScheme(), float_sums).model


def with_constants(model: onnx.ModelProto, values: dict[str, Array]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for index, one in enumerate(made.graph.initializer):
        if one.name in values:
            made.graph.initializer[index].CopyFrom(numpy_helper.from_array(values[one.name], one.name))
    return made


# The contest.


@dataclass(frozen=True)
class Cut:
    """A network cut where its normalised float images are."""

    before: onnx.ModelProto
    after: onnx.ModelProto

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Cut:
        first = convolutions(ir.from_proto(model).graph)[0]
        images = str(data(first).name)
        extractor = Extractor(onnx.shape_inference.infer_shapes(model))
        ends = [model.graph.input[0].name], [model.graph.output[0].name]
        return cls(extractor.extract_model(ends[0], [images]), extractor.extract_model([images], ends[1]))


def running(*models: onnx.ModelProto, exact: bool = True) -> Run:
    """Models one behind the other, each run as it is written."""
    sessions = [exact_session(model, threads=1) if exact else fast_session(model) for model in models]

    def run(frames: npt.NDArray[np.uint8]) -> Logits:
        passed: Any = frames
        for session in sessions:
            passed = session.run(None, {session.get_inputs()[0].name: passed})[0]
        return np.asarray(passed, np.float32)

    return run


def own_placement(model: onnx.ModelProto) -> str:
    """Says whether a tool's own graph has activations that TensorRT takes."""
    quantizers = [node for node in ir.from_proto(model).graph if node.op_type == "QuantizeLinear"]
    zeros = [constant(data(node, 2)) for node in quantizers]
    if all(zero.dtype == np.int8 and not zero.any() for zero in zeros):
        return "own, INT8"
    return "own, UINT8" if any(zero.dtype == np.uint8 for zero in zeros) else "own, zero points"


def contests(subject: Subject, environments: Path, folder: Path) -> Iterator[Contest | Failure]:
    cut, frames = Cut.of(subject.model), subject.calibration.pixels(subject.preprocessing)
    onnx.save(subject.model, folder / "frames.onnx")
    onnx.save(cut.after, folder / "floats.onnx")
    np.save(folder / "frames.npy", frames)
    np.save(folder / "floats.npy", running(cut.before, exact=False)(frames))
    for peer in PEERS:
        path = folder / f"{peer.tool}.onnx"
        arguments = [*(str(folder / name) for name in ("floats.onnx", "floats.npy")), str(path), peer.tool]
        try:
            made = worked(interpreter(environments, peer.environment), "_peers_worker.py", arguments, path)
        except ToolError as error:
            yield Failure(peer.label, str(error))
            continue
        yield Contest(peer.label, own_placement(made.model), running(cut.before, made.model), made)
        yield Contest(peer.label, "common", running(in_common_placement(subject.model, made.model)), made)
    for own in OWN:
        made = by_this_project(own, subject, folder)
        yield Contest(own.label, own.placement, running(made.model), made)


def by_this_project(own: Own, subject: Subject, folder: Path) -> Made:
    drawn, path = folder / "drawn.npy", folder / "own.onnx"
    looked_at = EFFORTS.get(own.effort, 0)
    images = subject.calibration.draw(max(looked_at, 1)).pixels(subject.preprocessing)
    np.save(drawn, images[:looked_at])
    files = [str(folder / name) for name in ("frames.onnx", "frames.npy")]
    return worked(sys.executable, "_own_worker.py", [*files, str(drawn), str(path), own.effort, own.scheme], path)


def remembered(run: Run) -> Run:
    """The same answers without running again, for a reference that every contestant is held against."""
    known: dict[bytes, Logits] = {}

    def answer(frames: npt.NDArray[np.uint8]) -> Logits:
        key = frames.tobytes()
        if key not in known:
            known[key] = run(frames)
        return known[key]

    return answer


def judged(subject: Subject, found: Iterator[Contest | Failure], told: Callable[[Row], None]) -> Iterator[Row]:
    reference = remembered(float_run(subject.model))
    for contest in found:
        if isinstance(contest, Failure):
            yield (subject.name, contest.label, f"fails: {contest.why}", *[""] * 5)
            continue
        result = subject.judge(reference, contest.run, "predicted")
        assert result.drop is not None  # every subject has labels
        drop = f"{result.drop.points:+.2f} ({result.drop.ci95[0]:+.2f} … {result.drop.ci95[1]:+.2f})"
        quality = (db(result.logit_sqnr_db), f"{result.agreement:.4f}", drop)
        cost = (f"{contest.made.seconds:.1f}", f"{contest.made.megabytes:.0f}")
        row = (subject.name, contest.label, contest.placement, *quality, *cost)
        told(row)
        yield row


def subjects(names: Sequence[str], shared: Path) -> Iterator[Subject]:
    if "cifar" in names and (shared / "data").is_dir():
        yield cifar_resnet20(shared)
    if "demo" in names:
        yield demo_resnet20_on_all() or demo_resnet20()
    for name in TRAINED_HERE:
        if name in names and (subject := trained(name)) is not None:
            yield subject


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--env", type=Path, default=DOWNLOADED, help="folder of the other tools' environments")
    arguments.add_argument("--images", type=int, help="judge on so many test images, evenly over all")
    arguments.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS, help="which networks")
    options = arguments.parse_args()
    rows: list[Row] = []
    for subject in subjects(options.network, options.shared):
        chosen = few(subject, options.images or len(subject.test))
        with tempfile.TemporaryDirectory() as folder:
            found = contests(chosen, options.env, Path(folder))
            rows += judged(chosen, found, lambda row: print(" | ".join(row), file=sys.stderr, flush=True))
    report([Table("INT8 by several tools, against FP32", HEADER, rows)], options.json)


if __name__ == "__main__":
    main()
