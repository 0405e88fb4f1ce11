"""``sensitivity``: what it prints is what ``quantize`` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CliJson = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def table(demo_onnx: Path, few: Path, cli_json: CliJson) -> str:
    return str(cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")["table"])


def test_layers_that_it_names_bring_quantize_nearer(demo_onnx: Path, few: Path, table: str, cli_json: CliJson) -> None:
    found = cli_json("sensitivity", demo_onnx, "--table", table, "--sqnr", "44", "--limit", "16")
    assert found["images"] == 16 and len(found["layers"]) == 19 + 9
    assert {layer["layer"] for layer in found["layers"]} >= {"conv1", "layer3.2.conv2", "layer1.0.add"}
    chosen = found["keep_float"]["layers"]
    assert chosen and 0 <= found["keep_float"]["macs_share"] < 0.5
    flags = [flag for name in chosen for flag in ("--keep-float", name)]
    quality = []
    for extra in ([], flags):
        made = cli_json("quantize", demo_onnx, "--table", table, "--effort", "fast", *extra, "-o", "q.onnx")
        assert set(extra[1::2]) & set(made["quantized_layers"]) == set()
        images = ("--images", few / "test")
        quality.append(cli_json("check", "q.onnx", "--reference", demo_onnx, *images)["logit_sqnr_db"])
    assert quality[1] > quality[0] + 1 and quality[1] > 40


def test_a_person_sees_the_worst_layer_first(demo_onnx: Path, table: str, cli: Callable[..., Any]) -> None:
    shown = cli("sensitivity", demo_onnx, "--table", table, "--limit", "4", "--sqnr", "20").stdout
    assert "of all MACs" in shown and "leave float, 0.0 % of MACs: none" in shown


def test_what_it_refuses(demo_onnx: Path, table: str, refused: Refused) -> None:
    assert "no calibration table at x.json" in refused(2, "sensitivity", demo_onnx, "--table", "x.json")
    assert "unknown scheme 'int4'" in refused(2, "sensitivity", demo_onnx, "--table", table, "--scheme", "int4")
