"""The roofline against a case worked by hand, and what bounds a launch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_resnet.engines.roofline import (
    Constants,
    Launch,
    OperatingPoint,
    all_seconds,
    live_bytes,
    weight_bytes,
)

POINT = OperatingPoint(
    sm=87, hertz=1e9, operations={"int8": 10e12, "fp16": 5e12, "fp32": 2e12}, bandwidth=100e9, l2_bytes=0
)
CONSTANTS = Constants(overhead_clocks=10_000, overhead_clocks_before_ampere=20_000, efficiency=0.5)
CONV = Launch("conv", "Conv", macs=100_000_000, frame=0, read=200_000, written=200_000, weights=40_000)
FC = Launch("fc", "Gemm", macs=1_000_000, frame=0, read=1_000, written=1_000, weights=1_000_000, held=5_000)


def test_two_layers_by_hand() -> None:
    # conv: 10 µs + 2e8 operations / 5e12 = 40 µs, against 0.44 MB / 100 GB/s = 4.4 µs
    # fc:   10 µs + max(2e6 / 5e12 = 0.4 µs, 1.002 MB / 100 GB/s = 10.02 µs)
    assert all_seconds([CONV, FC], POINT, "int8", CONSTANTS) == pytest.approx((50e-6, 20.02e-6), rel=1e-12)
    # FP16: half the peak, twice the bytes
    assert all_seconds([CONV, FC], POINT, "fp16", CONSTANTS) == pytest.approx((90e-6, 30.04e-6), rel=1e-12)


def test_before_ampere_a_launch_takes_its_own_number_of_clocks() -> None:
    (volta,) = all_seconds([CONV], replace(POINT, sm=72), "int8", CONSTANTS)
    assert volta == pytest.approx(60e-6, rel=1e-12)


def test_a_batch_grows_all_but_the_weights() -> None:
    # fc, batch 8: arithmetic 3.2 µs; traffic 8 · 2,000 + 1,000,000 bytes
    assert all_seconds([FC.batched(8)], POINT, "int8", CONSTANTS) == pytest.approx((10e-6 + 10.16e-6,), rel=1e-12)
    assert live_bytes([FC.batched(8)], "fp16") == 2 * 8 * (1_000 + 1_000 + 5_000)


def test_what_fits_the_cache_is_not_read_from_memory() -> None:
    only_activations = replace(POINT, l2_bytes=2_000)
    assert all_seconds([FC], only_activations, "int8", CONSTANTS) == pytest.approx((10e-6 + 10e-6,), rel=1e-12)
    everything = replace(POINT, l2_bytes=weight_bytes([FC], "int8"))
    assert all_seconds([FC], everything, "int8", CONSTANTS) == pytest.approx((10e-6 + 0.4e-6,), rel=1e-12)


def test_the_frame_is_one_byte_an_element_at_every_precision() -> None:
    stem = Launch("input", "Transpose", macs=0, frame=1_000, read=0, written=1_000, weights=0)
    assert [stem.activation_bytes(precision) for precision in ("int8", "fp16", "fp32")] == [2_000, 3_000, 5_000]
