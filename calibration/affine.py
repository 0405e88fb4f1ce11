"""Quantization arithmetic: pure functions on arrays.

q = clip(round_half_even(x / scale) + zero_point), x̂ = (q − zero_point) · scale: the definition of ONNX's QuantizeLinear
and DequantizeLinear, and of TensorRT's ("Working with Quantized Types": round-half-to-even, clip to the type's range). To
FP8, x / scale is rounded to its nearest number, half to even, and clipped to its largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
"""4 bits of exponent, 3 of mantissa, no infinity (Micikevicius et al., arXiv:2209.05433)."""
FP8_MAX = 448
"""Its largest number, 1.75 · 2⁸."""

SMALLEST_SCALE = np.float32(2.0**-24)
"""The smallest positive FP16 number: a scale below it would be 0 in an FP16 engine."""
SMALLEST_NORMAL = np.float32(2.0**-14)
"""Below it FP16 has multiples of ``SMALLEST_SCALE`` only, and rounding may change a scale by a third."""


@dataclass(frozen=True)
class QuantParams:
    """How one tensor is quantized.

    ``scale`` is a float32 scalar array (per tensor) or a vector along ``axis`` (per channel); there is one zero point.
    """

    scale: Array
    zero_point: int
    dtype: npt.DTypeLike
    axis: int | None = None

    @property
    def is_float(self) -> bool:
        """Whether the quantized type is FP8, not integers."""
        return bool(np.dtype(self.dtype) == FP8)

    @property
    def levels(self) -> tuple[int, int]:
        """The type's smallest and largest number."""
        if self.is_float:
            return -FP8_MAX, FP8_MAX
        info = np.iinfo(np.dtype(self.dtype))
        return int(info.min), int(info.max)


def _along(params: QuantParams, ndim: int) -> Array:
    if params.axis is None:
        return params.scale
    shape = [1] * ndim
    shape[params.axis] = -1
    return params.scale.reshape(shape)


def quantize(x: Array, params: QuantParams) -> npt.NDArray[Any]:
    """float32 → numbers of ``params.dtype``, same shape."""
    low, high = params.levels
    if params.is_float:
        return np.asarray(np.clip(x / _along(params, x.ndim), low, high).astype(params.dtype))
    q = np.rint(x / _along(params, x.ndim)).astype(np.float64) + params.zero_point
    return np.asarray(np.clip(q, low, high), params.dtype)


def dequantize(q: npt.NDArray[Any], params: QuantParams) -> Array:
    """Quantized numbers → float32, same shape."""
    if params.is_float:
        return np.asarray(q.astype(np.float32) * _along(params, q.ndim), np.float32)
    steps = q.astype(np.int64) - params.zero_point
    return steps.astype(np.float32) * _along(params, q.ndim)


def half_scale(scale: Array) -> Array:
    """Rounds scales to numbers that FP16 holds too: relative change ≤ 2⁻¹¹, or upwards where FP16 is subnormal.

    So that an engine typed in FP16 and one typed in FP32 quantize with the same scales, and one evaluation holds for
    both.
    """
    subnormal = np.maximum(np.ceil(scale / SMALLEST_SCALE), 1) * SMALLEST_SCALE
    rounded = scale.astype(np.float16).astype(np.float32)
    return np.asarray(np.where(scale < SMALLEST_NORMAL, subnormal, rounded), np.float32)


def symmetric(amax: npt.ArrayLike, axis: int | None = None) -> QuantParams:
    """INT8 with zero point 0: scale = amax / 127, per tensor or per channel."""
    return QuantParams(half_scale(np.asarray(amax, np.float32) / np.float32(127)), 0, np.int8, axis)


def floating(amax: npt.ArrayLike) -> QuantParams:
    """FP8 per tensor: scale = amax / 448, so that the largest number is FP8's largest."""
    return QuantParams(half_scale(np.asarray(amax, np.float32) / np.float32(FP8_MAX)), 0, FP8)


def asymmetric(low: float, high: float) -> QuantParams:
    """UINT8 over [low, high], widened to hold 0 exactly: a padded or rectified pixel must stay 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = half_scale(np.asarray((high - low) / 255, np.float32))
    zero_point = int(np.clip(np.rint(-low / scale), 0, 255))
    return QuantParams(scale, zero_point, np.uint8)
