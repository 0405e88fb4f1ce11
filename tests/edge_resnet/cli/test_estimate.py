"""``estimate`` at the command line: what scripts read, what people see, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

KEYS = {"target", "precision", "power", "batch", "latency_ms", "per_second", "memory_mb", "build_memory_mb", "basis"}


def test_the_document_has_the_keys_that_scripts_read(cli_json: Callable[..., Any]) -> None:
    document = cli_json("estimate", "resnet20", "--target", "jetson-orin-nano", "--power", "15w", "--batch", "4")
    assert set(document) >= KEYS
    assert "layers" not in document
    assert (document["target"], document["precision"], document["power"], document["batch"]) == (
        "jetson-orin-nano",
        "int8",
        "15W",
        4,
    )
    for key in ("latency_ms", "per_second", "memory_mb", "build_memory_mb"):
        assert document[key]["low"] < document[key]["estimate"] < document[key]["high"]


def test_people_see_that_it_is_an_estimate_and_the_launches_when_they_ask(cli: Callable[..., Any]) -> None:
    shown = cli("estimate", "resnet20", "--target", "jetson-agx-orin-32gb", "--layers").stdout
    assert "Estimate, not measured: resnet20 in int8 on Jetson AGX Orin 32GB, MAXN, batch 1" in shown
    assert "layer3.2.conv2" in shown
    assert "low" in shown and "high" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "jetson-thor"), "no estimate can be made for 'jetson-thor'"),
        (("--target", "cpu"), "no estimate can be made for 'cpu'"),
        (("--target", "jetson-orin-nano", "--power", "40W"), "choose one of MAXN_SUPER, 25W, 15W, 7W"),
        (("--target", "rtx-30", "--precision", "int8"), "no int8 estimate can be made for 'rtx-30'"),
        (("--target", "rtx-20", "--precision", "fp32"), "'rtx-20' has no fp32: choose one of fp16"),
    ],
)
def test_what_cannot_be_estimated_is_one_line(
    refused: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(2, "estimate", "resnet20", *arguments)
