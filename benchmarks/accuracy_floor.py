"""What INT8 costs in accuracy, engine by engine, and whether it stays above the project's floor.

    python benchmarks/accuracy_floor.py [--haswell 200]

Every row is held against FP32 on the same test images, none of which calibration saw. ``measured``: the engine ran here.
``predicted``: its Q/DQ graph was evaluated exactly, in FP32 arithmetic on integers. ONNX Runtime's own INT8 is
``quantize_static`` with the same calibration images, min-max, UINT8 activations and INT8 weights a channel: the form that
its kernels are fastest in. ``--haswell N`` also runs both CPU engines on N test images under ``qemu-x86_64 -cpu Haswell``
(Debian's qemu-user), a CPU with AVX2 and no VNNI, where INT8 sums may saturate.

Exits with 1 when a floor is missed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from _common import (
    Frames,
    Row,
    Subject,
    Table,
    cifar_resnet20,
    db,
    demo_resnet20,
    demo_resnet20_on_all,
    ort_int8,
    parser,
    report,
)

from edge_resnet.accuracy import AccuracyReport, Evaluated, Logits, Run
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.quantize import frames_wanted, quantize
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.check import float_run
from edge_resnet.engines.ort import OrtEngine

HEADER = (
    "network",
    "images",
    "engine",
    "",
    "logit SQNR",
    "agreement",
    "top-1",
    "drop in points, 95 % interval",
    "floor",
)
FLOOR_DB, FLOOR_AGREEMENT = 27.0, 0.976
"""On the CIFAR-10 ResNet-20."""

ON_HASWELL = """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
frames, *models = sys.argv[1:]
for path in models:
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    numpy.save(path + ".npy", session.run(None, {"frames": numpy.load(frames)})[0])
"""


@dataclass(frozen=True)
class Contest:
    """One line of the table."""

    engine: str
    evaluated: Evaluated
    run: Run
    has_floor: bool = False


@dataclass(frozen=True)
class Lowered:
    """A network in every INT8 form."""

    tensorrt: onnx.ModelProto
    cpu: onnx.ModelProto
    ort: onnx.ModelProto


def lowered(subject: Subject) -> Lowered:
    images, preprocessing = subject.calibration, subject.preprocessing
    table = collect(subject.model, images.batches(preprocessing, 8), method="mse", images={}, preprocessing={})
    wanted = frames_wanted("standard")
    frames = images.draw(wanted).pixels(preprocessing)
    ours = {name: quantize(subject.model, table, scheme, frames).model for name, scheme in INT8_SCHEMES.items()}
    return Lowered(ours["tensorrt"], ours["cpu"], ort_int8(subject.model, images.pixels(preprocessing)))


def contests(models: Lowered) -> Iterator[Contest]:
    def exact(model: onnx.ModelProto) -> Run:
        return partial(run_frames, exact_session(model))

    yield Contest("edge-resnet, TensorRT", "predicted", exact(models.tensorrt), has_floor=True)
    yield Contest("edge-resnet, CPU", "measured", OrtEngine(models.cpu.SerializeToString()).run, has_floor=True)
    yield Contest("edge-resnet, CPU", "predicted", exact(models.cpu))
    yield Contest("ONNX Runtime U8S8", "measured", OrtEngine(models.ort.SerializeToString()).run)
    yield Contest("ONNX Runtime U8S8", "predicted", exact(models.ort))


def on_haswell(models: Lowered, frames: Frames) -> Iterator[Contest]:
    """Both CPU engines as a Haswell answers, on these frames and no others."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        raise SystemExit("qemu-x86_64 is not installed (Debian: qemu-user): leave --haswell out")
    forms = {"edge-resnet, CPU": models.cpu, "ONNX Runtime U8S8": models.ort}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.onnx" for index in range(len(forms))]
        for path, model in zip(paths, forms.values(), strict=True):
            onnx.save(model, path)
        source = Path(folder) / "frames.npy"
        np.save(source, frames)
        command = [qemu, "-cpu", "Haswell", sys.executable, "-c", ON_HASWELL, source, *paths]
        subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)  # qemu warns much
        for name, path in zip(forms, paths, strict=True):
            answers: Logits = np.load(f"{path}.npy")
            yield Contest(f"{name} on a Haswell", "measured", _replay(frames, answers))


def _replay(frames: Frames, answers: Logits) -> Run:
    """Gives the answers that were made to these frames."""
    known = {frame.tobytes(): answer for frame, answer in zip(frames, answers, strict=True)}
    return lambda batch: np.stack([known[frame.tobytes()] for frame in batch])


def few(subject: Subject, count: int) -> Subject:
    """The subject with so many test images, evenly over all."""
    chosen = np.linspace(0, len(subject.test) - 1, min(count, len(subject.test))).astype(int)
    return replace(subject, test=subject.test[chosen], labels=tuple(subject.labels[i] for i in chosen))


def row(subject: Subject, contest: Contest, result: AccuracyReport, floor: str) -> Row:
    assert result.drop is not None  # every subject has labels
    drop = f"{result.drop.points:+.2f} ({result.drop.ci95[0]:+.2f} … {result.drop.ci95[1]:+.2f})"
    quality = (db(result.logit_sqnr_db), f"{result.agreement:.4f}", f"{result.engine.top1:.4f}")
    return (subject.name, f"{result.images:,}", contest.engine, contest.evaluated, *quality, drop, floor)


def judged(subject: Subject, found: Iterator[Contest], floors: bool) -> Iterator[tuple[Row, bool]]:
    """Each contest's row, and whether it stays above its floor."""
    reference = float_run(subject.model)
    fp32: Row | None = None
    for contest in found:
        result = subject.judge(reference, contest.run, contest.evaluated)
        if fp32 is None:
            fp32 = (subject.name, f"{result.images:,}", "FP32", "measured", "", "", f"{result.fp32.top1:.4f}", "", "")
            yield fp32, True
        held = floors and contest.has_floor
        above = result.agreement >= FLOOR_AGREEMENT and (result.logit_sqnr_db or np.inf) >= FLOOR_DB
        yield row(subject, contest, result, ("kept" if above else "MISSED") if held else ""), above or not held


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--haswell", type=int, metavar="N", default=0, help="run N test images on an emulated Haswell"
    )
    options = arguments.parse_args()
    cifar, demo = cifar_resnet20(options.shared), demo_resnet20()
    models, demo_models = lowered(cifar), lowered(demo)
    found = [*judged(cifar, contests(models), floors=True), *judged(demo, contests(demo_models), floors=False)]
    every = demo_resnet20_on_all()
    if every is not None:
        found += judged(every, contests(demo_models), floors=False)
    if options.haswell:
        part = few(cifar, options.haswell)
        found += judged(part, on_haswell(models, part.test), floors=False)
    title = f"INT8 against FP32; floor: {FLOOR_DB:g} dB and {FLOOR_AGREEMENT}"
    report([Table(title, HEADER, [one for one, _ in found])], options.json)
    if not all(above for _, above in found):
        raise SystemExit("a floor is missed")


if __name__ == "__main__":
    main()
