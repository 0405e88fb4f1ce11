"""What the benchmarks share: arguments, the facts of the machine, tables, paired timing, and two networks."""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import load_file
from torch import nn

from edge_resnet.accuracy import AccuracyReport, Evaluated, Run, compare_answers, paired_answers
from edge_resnet.demo import CALIBRATION, TEST, demo_recipe
from edge_resnet.engines.processor import cpu_name
from edge_resnet.export import export_onnx
from edge_resnet.images import ImageSet, open_images
from edge_resnet.models import ARCHITECTURES, ResNet, create_model
from edge_resnet.preprocessing import NAMED, Color, Crop, Interpolation, Preprocessing
from edge_resnet.source import load_source
from edge_resnet.weights import load_model

Frames = npt.NDArray[np.uint8]
Seconds = npt.NDArray[np.float64]
Row = tuple[str, ...]

SHARED = Path(__file__).resolve().parents[2] / "shared"
FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package ``dataset-fashion-mnist`` puts its files."""
SIDE = 224
TRAINED = Path.home() / ".cache" / "edge-resnet-networks"
"""Where ``train_networks.py`` puts weights."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with what every benchmark takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shared", type=Path, default=SHARED, help="folder of the data to measure on")
    made.add_argument("--json", type=Path, help="write the record to this file too")
    return made


def machine() -> dict[str, str]:
    """What a figure depends on beside the code: the processor with its INT8 instructions, and the versions."""
    names = ("edge-resnet", "onnxruntime", "onnx", "numpy", "torch", "pillow")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return {"cpu": cpu_name(), "versions": f"Python {platform.python_version()}, {versions}"}


@dataclass(frozen=True)
class Table:
    """One table of a record."""

    title: str
    header: Row
    rows: Sequence[Row]

    def __str__(self) -> str:
        """Markdown, aligned: a person reads it in a terminal as well."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in self._lines()
        ]
        rule = " | ".join("-" * width for width in widths)
        return "\n".join([self.title, "", *(f"| {line} |" for line in (lines[0], rule, *lines[1:]))])

    def _lines(self) -> list[Row]:
        return [self.header, *self.rows]


def report(tables: Sequence[Table], record: Path | None, **figures: Any) -> None:
    """Prints the machine and the tables; writes them, with the bare figures, as JSON where a file is named."""
    facts = machine()
    print("\n" + "\n".join(facts.values()))
    for table in tables:
        print(f"\n{table}")
    if record is not None:
        document = {
            **facts,
            "tables": {t.title: [dict(zip(t.header, row, strict=True)) for row in t.rows] for t in tables},
        }
        record.write_text(json.dumps({**document, **figures}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def paired_seconds(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Times each callable once a round, one after another, ``rounds`` rounds.

    Before each timed run stands an untimed one of the same callable: it takes the caches back, and the threads of the one
    before, which spin for a while, come to rest.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def sqnr_db(wanted: npt.NDArray[np.float32], actual: npt.NDArray[np.float32]) -> float:
    """10·log10(Σz² / Σ(z − ẑ)²)."""
    noise = np.square(wanted.astype(np.float64) - actual).sum()
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / noise)) if noise else float("inf")


def db(value: float | None) -> str:
    return "equal" if value is None or np.isinf(value) else f"{value:.2f} dB"


@dataclass(frozen=True)
class Subject:
    """A trained network, images to calibrate it and images to judge it."""

    name: str
    model: onnx.ModelProto
    preprocessing: Preprocessing
    calibration: ImageSet
    test: Frames
    labels: tuple[int, ...]

    def judge(self, reference: Run, contestant: Run, evaluated: Evaluated) -> AccuracyReport:
        """FP32 and a contestant on the test images."""
        batches = (self.test[start : start + 50] for start in range(0, len(self.test), 50))
        pairs = paired_answers(reference, contestant, batches)
        return compare_answers(pairs, self.labels, engine_name=self.name, evaluated=evaluated)


def cifar_resnet20(shared: Path) -> Subject:
    """The published ResNet-20 ``12fca82f``; 512 training images for calibration, 2,000 test images."""
    data = shared / "data"
    preprocessing = Preprocessing(
        (32, 32), None, Crop.NONE, Interpolation.BILINEAR, Color.RGB, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    model = export_onnx(load_model("resnet20", data / "weights" / "resnet20-12fca82f.th"), preprocessing)
    calibration = open_images(data / "cifar10-jpeg" / "train", limit=512)
    test = open_images(data / "cifar10-jpeg" / "test")
    return Subject("CIFAR-10 ResNet-20", model, preprocessing, calibration, test.pixels(preprocessing), labels_of(test))


def demo_resnet20() -> Subject:
    """The demo network with the images that the package ships."""
    source = load_source(demo_recipe())
    test = open_images(TEST).with_labels_of(source.labels)
    pixels = test.pixels(source.preprocessing)
    name = "Fashion-MNIST ResNet-20 (demo)"
    return Subject(name, source.model, source.preprocessing, open_images(CALIBRATION), pixels, labels_of(test))


def demo_resnet20_on_all(folder: Path = FASHION) -> Subject | None:
    """The demo network with all 10,000 test images of Fashion-MNIST; None where its Debian package is not installed."""
    files = {name: folder / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")}
    if not all(path.is_file() for path in files.values()):
        return None
    pixels, labels = (_read_idx(path) for path in files.values())
    return replace(demo_resnet20(), test=pixels[..., None], labels=tuple(int(label) for label in labels))


def trained_network(name: str) -> ResNet:
    """An architecture for Fashion-MNIST; of the ImageNet family with a 3×3 stem and a quarter of its width."""
    architecture = ARCHITECTURES[name]
    if architecture.stem != "3x3":
        narrow = tuple(width // 4 for width in architecture.widths)
        architecture = replace(architecture, stem="3x3", widths=narrow, size=32)
    return ResNet(architecture, classes=10, channels=1)


def trained(name: str, folder: Path = TRAINED) -> Subject | None:
    """A network that ``train_networks.py`` made, with the demo's calibration images and all 10,000 test images; None
    where one of both is not there.
    """
    weights, like = folder / f"{name}.safetensors", demo_resnet20_on_all()
    if not weights.is_file() or like is None:
        return None
    network = trained_network(name)
    network.load_state_dict(load_file(weights))
    model = export_onnx(network.eval(), like.preprocessing)
    return replace(like, name=f"Fashion-MNIST {name}", model=model)


def _read_idx(path: Path) -> Frames:
    """One gzipped IDX file of uint8 (format: yann.lecun.com/exdb/mnist)."""
    content = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def labels_of(images: ImageSet) -> tuple[int, ...]:
    if images.labels is None:
        raise SystemExit(f"{images.root} has no labels: accuracy cannot be measured on it")
    return images.labels


def photo_frames(shared: Path, count: int, seed: int = 0) -> Iterator[Frames]:
    """Real photos 224×224×3 again and again, each time cut and mirrored anew; random pixels where there are no photos."""
    random = np.random.default_rng(seed)
    preprocessing = NAMED["imagenet"]
    folder = shared / "data" / "photos"
    if not folder.is_dir():
        print(f"{folder} is not here: random pixels stand for photos")
        yield from (random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(count))
        return
    photos = open_images(folder).pixels(preprocessing)
    padded = np.pad(photos, ((0, 0), (24, 24), (24, 24), (0, 0)), mode="reflect")
    for index in range(count):
        top, left = random.integers(0, 49, 2)
        frame = padded[index % len(padded), top : top + SIDE, left : left + SIDE]
        yield np.ascontiguousarray(frame[:, ::-1] if random.random() < 0.5 else frame)


def randomised(name: str, shortcut: str | None = None, side: int = 64) -> ResNet:
    """A network of random weights, with the BatchNorm statistics of a forward pass over random images of some size."""
    torch.manual_seed(0)
    network = create_model(name, shortcut=shortcut)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None  # the plain mean of what it sees
    with torch.no_grad():
        network.train()(torch.randn(4, network.channels, side, side))
    return network.eval()


def resnet50(frames: Frames) -> onnx.ModelProto:
    """A ResNet-50 of random weights whose BatchNorm statistics are those of the frames, N×224×224×3.

    Times and memory do not depend on weights; ranges do, and a network that normalises nothing has none to speak of.
    """
    torch.manual_seed(0)
    network, preprocessing = create_model("resnet50"), NAMED["imagenet"]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what it sees
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    with torch.no_grad():
        network.train()(((torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255) - mean) / std)
    return export_onnx(network.eval(), preprocessing)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    def __init__(self, frames: Frames) -> None:
        self._frames = iter(frames)

    def get_next(self) -> dict[str, Frames] | None:
        frame = next(self._frames, None)
        return None if frame is None else {"frames": frame[None]}


def ort_int8(model: onnx.ModelProto, frames: Frames) -> onnx.ModelProto:
    """ONNX Runtime's own INT8: Q/DQ, UINT8 activations of the min-max range, full-range INT8 weights a channel."""
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("fp32", "prepared", "int8"))
        onnx.save(model, source)
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            made,
            _Reader(frames),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return onnx.load(made)
