"""Ways from a camera's frame to the network's input: how long each takes, and how far its pixels are from Pillow's.

    python benchmarks/preprocessing.py [--rounds 40] [--photos 50]

Every way takes a frame as a uint8 array to 224×224 RGB: its shorter side to 256, antialiased, bilinear, and the centre cut
out. Time is a ratio to Pillow's resize of the whole frame and its crop, run in turns with it, the median: by the clock, and
of the processor's time in all threads, which other work on the machine does not lengthen so much. Pixels are compared over
real photos, and over a frame of noise and edges, scaled to the size. Ways whose package is missing are left out:
``pip install opencv-python-headless`` brings OpenCV's.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from _common import Row, Table, parser, report
from onnx import TensorProto, helper
from PIL import Image

from edge_resnet import resampling
from edge_resnet.frames import FrameColor, FrameFormat, to_rgb
from edge_resnet.preprocessing import NAMED, Interpolation

Pixels = npt.NDArray[np.uint8]
Way = Callable[[Pixels], Pixels]
IMAGENET = NAMED["imagenet"]
SIDE, SHORTER = 224, 256
HD, VGA, UHD = (1080, 1920), (480, 640), (2160, 3840)
TIMES = ("clock, Pillow = 1", "processor, Pillow = 1", "processor, ms")


def geometry(frame: Pixels) -> tuple[int, int, int, int, tuple[float, float, float, float]]:
    """Width and height that a frame gets, left and top of the crop in that, and the crop's box in the frame."""
    height, width = frame.shape[:2]
    across, down = (
        SHORTER if side == min(height, width) else int(SHORTER * side / min(height, width)) for side in (width, height)
    )
    left, top = round((across - SIDE) / 2), round((down - SIDE) / 2)
    box = (left * width / across, top * height / down, (left + SIDE) * width / across, (top + SIDE) * height / down)
    return across, down, left, top, box


def pillow(frame: Pixels, kernel: Image.Resampling = Image.Resampling.BILINEAR) -> Pixels:
    """As a user writes it: what time is measured by."""
    across, down, left, top, _ = geometry(frame)
    return np.asarray(Image.fromarray(frame).resize((across, down), kernel).crop((left, top, left + SIDE, top + SIDE)))


def wanted(frame: Pixels, kernel: Image.Resampling = Image.Resampling.BILINEAR) -> Pixels:
    """The same, one axis a call: version 13 would choose their order itself, which changes bicubic pixels."""
    across, down, left, top, _ = geometry(frame)
    image = Image.fromarray(frame)
    wide = image.resize((across, image.height), kernel)
    return np.asarray(wide.resize((across, down), kernel).crop((left, top, left + SIDE, top + SIDE)))


def pillow_box(frame: Pixels) -> Pixels:
    *_, box = geometry(frame)
    image = Image.fromarray(frame)
    wide = image.resize((SIDE, image.height), 2, box=(box[0], 0, box[2], image.height))
    return np.asarray(wide.resize((SIDE, SIDE), 2, box=(0, box[1], SIDE, box[3])))


def pillow_box_one_call(frame: Pixels) -> Pixels:
    *_, box = geometry(frame)
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), 2, box=box))


def pillow_whole_box(frame: Pixels) -> Pixels:
    *_, box = geometry(frame)
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), 2, box=tuple(map(round, box))))


def pillow_gap(frame: Pixels, gap: float) -> Pixels:
    *_, box = geometry(frame)
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), 2, box=box, reducing_gap=gap))


def pillow_order(frame: Pixels) -> Pixels:
    """Bilinear as ``prepare`` does bicubic: across first, in Pillow's own bits."""
    down, across = IMAGENET._axes(*frame.shape[:2])
    lines = frame[down.pixels, across.pixels].reshape(down.pixels.stop - down.pixels.start, -1)
    wide = resampling._across(lines, resampling._interleaved(across, resampling._PILLOW, (0, 1, 2), 3))
    small = resampling._down(wide, resampling._blocks(down, resampling._PILLOW))
    return small.astype(np.uint8).reshape(SIDE, SIDE, 3)


def dense_products(frame: Pixels) -> Pixels:
    """The same two matrices, whole, as one would write it."""
    down, across = IMAGENET.weights(*frame.shape[:2])
    tall = np.floor(np.tensordot(down, frame.astype(np.float32), 1) + 0.5)
    return np.floor(np.einsum("hwc,wx->hxc", tall, across, optimize=True) + 0.5).astype(np.uint8)


def torch_resize(frame: Pixels) -> Pixels:
    """On a uint8 tensor in channels-last order, for which it has vector code; torchvision calls this for tensors."""
    across, down, left, top, _ = geometry(frame)
    tensor = torch.from_numpy(frame).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(tensor, (down, across), mode="bilinear", antialias=True)[0]
    return resized[:, top : top + SIDE, left : left + SIDE].permute(1, 2, 0).contiguous().numpy()


@lru_cache
def ort_session(shape: tuple[int, ...], axes: tuple[int, int], sizes: tuple[int, int]) -> onnxruntime.InferenceSession:
    value = [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in ("frames", "pixels")]
    inputs, kind = ["frames", "", "", "sizes"], {"mode": "linear", "antialias": 1, "axes": axes}
    node = helper.make_node("Resize", inputs, ["pixels"], **kind)
    initial = [helper.make_tensor("sizes", TensorProto.INT64, [2], sizes)]
    graph = helper.make_graph(
        [node], "resize", [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)], value[1:], initial
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def onnx_runtime(frame: Pixels) -> Pixels:
    """Its antialiased Resize, of planes."""
    across, down, left, top, _ = geometry(frame)
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1))[np.newaxis]
    pixels = ort_session(planes.shape, (2, 3), (down, across)).run(None, {"frames": planes})[0][0]
    return np.ascontiguousarray(pixels[:, top : top + SIDE, left : left + SIDE].transpose(1, 2, 0))


def opencv_ways() -> dict[str, Way]:
    """OpenCV's, where it is installed."""
    if importlib.util.find_spec("cv2") is None:
        return {}
    import cv2

    def whole(method: int) -> Way:
        def way(frame: Pixels) -> Pixels:
            across, down, left, top, _ = geometry(frame)
            return np.asarray(
                cv2.resize(frame, (across, down), interpolation=method)[top : top + SIDE, left : left + SIDE]
            )

        return way

    def halved(frame: Pixels) -> Pixels:
        *_, box = geometry(frame)
        half = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        return np.asarray(
            Image.fromarray(half).resize((SIDE, SIDE), 2, box=(box[0] / 2, box[1] / 2, box[2] / 2, box[3] / 2))
        )

    return {
        "OpenCV: halved by area, then Pillow with the crop's box": halved,
        "OpenCV: area": whole(cv2.INTER_AREA),
        "OpenCV: linear (not antialiased)": whole(cv2.INTER_LINEAR),
    }


WAYS: dict[str, Way] = {
    "Pillow: resize, crop": pillow,
    "Pillow: box of the crop, one axis a call (before)": pillow_box,
    "Pillow: box of the crop": pillow_box_one_call,
    "Pillow: box in whole pixels": pillow_whole_box,
    "Pillow: box, reducing_gap 2": lambda frame: pillow_gap(frame, 2.0),
    "Pillow: box, reducing_gap 1": lambda frame: pillow_gap(frame, 1.0),
    **opencv_ways(),
    "ONNX Runtime: Resize, antialiased": onnx_runtime,
    "torch: uint8 tensor, as torchvision": torch_resize,
    "NumPy: two dense products": dense_products,
    "products in Pillow's order and bits": pillow_order,
    "`prepare`": IMAGENET.prepare,
}


def noise_and_edges(size: tuple[int, int]) -> Pixels:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    noise[: size[0] // 2] = noise[: size[0] // 2] // 128 * 255
    return noise


def scaled_photos(folder: Path, size: tuple[int, int], count: int) -> list[Pixels]:
    """Real photos at a camera's size, or the noise alone where there are none."""
    images = (Image.open(path).convert("RGB") for path in sorted(folder.glob("*.JPEG"))[:count])
    return [np.array(image.resize(size[::-1], Image.Resampling.BICUBIC)) for image in images]


def errors(way: Way, other: Way, frames: list[Pixels]) -> tuple[str, str]:
    """Mean and worst difference, of 255."""
    differences = [np.abs(way(frame).astype(int) - other(frame)) for frame in frames]
    if not differences:
        return "", ""
    return f"{np.mean(differences):.4f}", str(np.max(differences))


def paired(runs: Mapping[str, Way], frame: Pixels, rounds: int) -> dict[str, tuple[str, str, str]]:
    """Ratios of time to the first way's by the clock and of processor time, and the median in ms of that."""
    taken = {name: np.empty((rounds, 2)) for name in runs}
    for turn in range(rounds):
        for name, way in runs.items():
            way(frame)  # brings the frame back into the caches, and lets the threads of the way before come to rest
            clock, processor = time.perf_counter(), time.process_time()
            way(frame)
            taken[name][turn] = time.perf_counter() - clock, time.process_time() - processor
    base = next(iter(taken.values()))
    shown = {}
    for name, seconds in taken.items():
        by_clock, by_processor = np.median(seconds / base, axis=0)
        shown[name] = (f"{by_clock:.2f}", f"{by_processor:.2f}", f"{1e3 * np.median(seconds[:, 1]):.1f}")
    return shown


def ways_table(photos: list[Pixels], rounds: int) -> Table:
    noise = noise_and_edges(HD)
    rows: list[Row] = []
    for name, way in WAYS.items():
        # Each beside Pillow alone: the threads of one library spin on for a while, and would be counted in the next.
        times = paired({"pillow": pillow, name: way}, photos[0] if photos else noise, rounds)[name]
        rows.append((name, *times, *errors(way, wanted, photos), *errors(way, wanted, [noise])))
    header = ("way", *TIMES, "photos: mean", "worst", "noise: mean", "worst ")
    return Table("A frame of 1920×1080", header, rows)


def sizes_table(photos: Path, rounds: int) -> Table:
    rows: list[Row] = []
    for height, width in (VGA, HD, UHD):
        frames = [*scaled_photos(photos, (height, width), 5), noise_and_edges((height, width))]
        for interpolation in (Interpolation.BILINEAR, Interpolation.BICUBIC, Interpolation.LANCZOS):
            spec, kernel = replace(IMAGENET, interpolation=interpolation), Image.Resampling[interpolation.name]
            ways = {"pillow": partial(pillow, kernel=kernel), "own": spec.prepare}
            times = paired(ways, frames[0], rounds)["own"]
            error = errors(spec.prepare, partial(wanted, kernel=kernel), frames)
            rows.append((f"{width}×{height}", interpolation.value, *times, *error))
    return Table("`prepare` at other sizes", ("frame", "interpolation", *TIMES, "mean", "worst"), rows)


def first_seen(frame: Pixels) -> Pixels:
    """A frame of a size that was not seen before: its weights are reckoned."""
    for cached in (resampling._taps, resampling._blocks, resampling._interleaved):
        cached.cache_clear()
    return IMAGENET.prepare(frame)


def colors_table(rounds: int) -> Table:
    """Against the buffer made RGB, then Pillow's resize and crop."""
    random, rows = np.random.default_rng(0), []
    for color in FrameColor:
        buffer = random.integers(0, 256, FrameFormat(*HD, color).shape, np.uint8)

        def by_pillow(frame: Pixels, color: FrameColor = color) -> Pixels:
            rgb = np.ascontiguousarray(to_rgb(frame, color))
            return pillow(rgb[:, :, 0] if rgb.shape[2] == 1 else rgb)

        ways = {"pillow": by_pillow, "own": partial(IMAGENET.prepare, color=color)}
        rows.append((color.value, *paired(ways, buffer, rounds)["own"]))
    frame = random.integers(0, 256, (*HD, 3), np.uint8)
    times = paired({"pillow": pillow, "own": first_seen}, frame, rounds)["own"]
    rows.append(("rgb, the first of its size", *times))
    return Table("`prepare` of a camera's buffer, 1920×1080", ("color", *TIMES), rows)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=40)
    command.add_argument("--photos", type=int, default=50)
    arguments = command.parse_args()
    folder = arguments.shared / "data" / "photos"
    tables = [
        ways_table(scaled_photos(folder, HD, arguments.photos), arguments.rounds),
        sizes_table(folder, arguments.rounds // 2),
        colors_table(arguments.rounds // 2),
    ]
    report(tables, arguments.json)


if __name__ == "__main__":
    main()
