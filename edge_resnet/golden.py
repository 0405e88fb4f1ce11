"""Golden samples: a few frames, what FP32 makes of them, and what each engine shall make of them.

They travel in the bundle as plain ``.npy`` members. An engine that answers them otherwise is not the one that was
built, or does not run here as it should.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_resnet.bundle import Bundle
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.registry import engine_class
from edge_resnet.errors import BundleError
from edge_resnet.frames import FrameFormat
from edge_resnet.preprocessing import Preprocessing

SAMPLES = 8
COMPRESSED = "compressed"
"""Beside ``fp32``, the answers of the FP32 network that engines are made of, where that is a compressed one."""
TOLERANCE_DB = 15.0
"""An engine's logits must have this SQNR against the expected ones. Kernels may round a sum the other way: that leaves
40 dB and more with trained networks, 20 dB with a ResNet-50 of random weights (``benchmarks/cpu_speed.py``). A wrong zero
point, saturated sums or swapped channels leave far less."""

FP32_TOLERANCE_DB = 10.0
"""The SQNR against FP32's logits, of an engine that was compiled later: what it should answer itself nobody has written
down. INT8 of a trained network has 20 to 32 dB (``benchmarks/README.md``); what is broken has less than 10."""

Frames = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GoldenResult:
    """How one engine answers the golden samples."""

    target: str
    sqnr_db: float | None
    """Against the expected logits; None when they are equal."""
    passed: bool


def golden_members(frames: Frames, fp32: Logits, expected: dict[str, Logits]) -> dict[str, bytes]:
    """The bundle members that hold golden samples: frames, FP32 logits, and each target's expected logits."""
    arrays: dict[str, npt.NDArray[Any]] = {"frames": frames, "fp32": fp32, **expected}
    return {member: data for name, array in arrays.items() for member, data in golden_member(name, array).items()}


def golden_member(name: str, array: npt.NDArray[Any]) -> dict[str, bytes]:
    """One of them."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return {f"golden/{name}.npy": buffer.getvalue()}


def read_golden(bundle: Bundle, name: str) -> npt.NDArray[Any]:
    """One array of the golden samples: ``frames``, ``fp32`` or a target's name.

    Raises:
        BundleError: it is not there or damaged.
    """
    data = bundle.read(f"golden/{name}.npy")
    file = io.BytesIO(data)
    try:
        _check_size(data)
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)  # np.load would read zips too
    except Exception as error:  # a damaged header leads numpy to any: ValueError, TokenError, TypeError, …
        raise BundleError(f"the golden samples '{name}' cannot be read ({error}): build the bundle again") from error
    return array


def _check_size(data: bytes) -> None:
    """Refuses a header that promises more values than follow it, for which numpy would take memory first.

    Raises:
        ValueError: it does, or has another form.
    """
    file = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = readers[version](file)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{len(data) - file.tell()} bytes for {shape} of {dtype}")


def replay(bundle: Bundle, target: str, engine: Engine) -> GoldenResult:
    """Runs an engine over the bundle's golden samples and compares: with its own logits or, where it was compiled later,
    with those of the FP32 network that it was made of.
    """
    frames = read_golden(bundle, "frames")
    if f"golden/{target}.npy" in bundle.names:
        return judge(target, read_golden(bundle, target), one_by_one(engine, frames))
    member = COMPRESSED if f"golden/{COMPRESSED}.npy" in bundle.names else "fp32"
    return judge(target, read_golden(bundle, member), one_by_one(engine, frames), FP32_TOLERANCE_DB)


def replay_camera(bundle: Bundle, target: str, engine: Engine, frames: FrameFormat) -> GoldenResult:
    """As ``replay``, for an engine that prepares a camera's frames itself: the samples, enlarged to buffers of that camera,
    against FP32 on what the preprocessing makes of them.
    """
    buffers = np.stack([_enlarged(sample, frames.shape) for sample in read_golden(bundle, "frames")])
    preprocessing = Preprocessing.from_json(bundle.manifest.preprocessing)
    prepared = np.stack([preprocessing.prepare(buffer, "a golden sample", frames.color) for buffer in buffers])
    with engine_class("onnxruntime")(bundle.read(bundle.compiled_member)) as fp32:
        expected = fp32.run(prepared)
    return judge(target, expected, one_by_one(engine, buffers), FP32_TOLERANCE_DB)


def _enlarged(sample: Frames, shape: tuple[int, int, int]) -> Frames:
    """A sample as bytes of a camera's buffer, its pixels repeated; any bytes are some picture, in every colour."""
    rows, columns = (
        np.arange(wanted) * have // wanted for wanted, have in zip(shape[:2], sample.shape[:2], strict=True)
    )
    channels = np.arange(shape[2]) % sample.shape[2]
    return np.ascontiguousarray(sample[rows][:, columns][:, :, channels])


def one_by_one(engine: Engine, frames: Frames) -> Logits:
    """The answers, each frame run alone, as a camera's are."""
    return np.concatenate([engine.run(frames[index : index + 1]) for index in range(len(frames))])


def judge(target: str, expected: Logits, answers: Logits, tolerance_db: float = TOLERANCE_DB) -> GoldenResult:
    """Whether the answers are the expected ones within the tolerance."""
    noise = float(np.square(expected.astype(np.float64) - answers).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    if noise == 0:
        return GoldenResult(target, None, True)
    sqnr = 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else -math.inf
    return GoldenResult(target, sqnr, sqnr >= tolerance_db)
