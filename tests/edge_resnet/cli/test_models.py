"""``models`` against the published sizes and a count by the papers' own tables."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest

from edge_resnet.cli import models_command

GMAC = {"resnet18": 1.81, "resnet34": 3.66, "resnet50": 4.09, "resnet101": 7.80, "resnet152": 11.51}
"""``_ops`` in the metadata of torchvision's published weights (ResNet-50 and deeper in their v1.5 form)."""
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
DEPTHS["resnet152"] = (3, 8, 36, 3)


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """What ``models --json`` prints, by name."""
    with redirect_stdout(io.StringIO()) as printed:
        models_command.run(json=True)
    document = json.loads(printed.getvalue())
    assert all(set(row) >= {"name", "parameters", "gmac"} for row in document)
    return {row["name"]: row for row in document}


def imagenet(name: str) -> float:
    """Multiply-adds at 224×224 and 1,000 classes, by table 1 of He et al. with the stride in the 3×3 convolution."""
    deep = DEPTHS[name] in ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)) and name != "resnet34"
    total, inputs = 112 * 112 * 64 * 3 * 49, 64
    for stage, (blocks, width) in enumerate(zip(DEPTHS[name], (64, 128, 256, 512), strict=True)):
        side = 56 >> stage
        outputs = 4 * width if deep else width
        for block in range(blocks):
            before = side * (2 if block == 0 and stage else 1)
            if deep:
                total += before**2 * inputs * width + side**2 * (9 * width * width + width * outputs)
            else:
                total += side**2 * 9 * (inputs * width + width * width)
            total += side**2 * inputs * outputs if inputs != outputs else 0
            inputs = outputs
    return (total + inputs * 1000) / 1e9


def cifar(layers: int) -> float:
    """Multiply-adds at 32×32 and 10 classes, by section 4.2: shortcuts cost nothing."""
    blocks = (layers - 2) // 6
    total = 32 * 32 * 9 * 3 * 16
    for stage, width in enumerate((16, 32, 64)):
        first = 9 * (width if stage == 0 else width // 2) * width
        total += (32 >> stage) ** 2 * (first + (2 * blocks - 1) * 9 * width * width)
    return (total + 64 * 10) / 1e9


@pytest.mark.parametrize("name", GMAC)
def test_multiply_adds_of_the_imagenet_family(name: str, rows: dict[str, dict[str, Any]]) -> None:
    assert round(rows[name]["gmac"], 2) == GMAC[name]
    assert rows[name]["gmac"] == pytest.approx(imagenet(name), rel=1e-12)


@pytest.mark.parametrize("layers", [20, 32, 44, 56, 110])
def test_multiply_adds_of_the_cifar_family(layers: int, rows: dict[str, dict[str, Any]]) -> None:
    assert rows[f"resnet{layers}"]["gmac"] == pytest.approx(cifar(layers), rel=1e-12)


def test_parameters_are_the_published_ones(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["resnet50"]["parameters"] == 25_557_032
    assert rows["resnet18"]["parameters"] == 11_689_512
    assert round(rows["resnet56"]["parameters"] / 1e6, 2) == 0.85


def test_the_table_shows_what_the_document_holds(cli: Callable[..., Any], rows: dict[str, dict[str, Any]]) -> None:
    shown = cli("models").stdout
    for name, row in rows.items():
        line = next(line for line in shown.splitlines() if line.split()[:1] == [name])
        assert f"{row['parameters']:,}" in line and f"{row['gmac']:.3f}" in line
