"""Benches and comparisons: what they say is what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_resnet.bench_report import histogram_png
from edge_resnet.benchmark import Latency

CliJson = Callable[..., Any]
TIMES = tuple(float(each) for each in range(1, 101))


def test_latency_is_of_its_times() -> None:
    latency = Latency("int8", "cpu", "a CPU", TIMES)
    document = latency.to_json()
    assert document["latency_ms"] == pytest.approx({"p50": 50.5, "p90": 90.1, "p99": 99.01, "max": 100.0})
    assert document["per_second"] == pytest.approx(1000 / 50.5)


def test_a_bench_says_where_the_time_goes_and_which_batch_is_best(demo_bundle: Path, cli_json: CliJson) -> None:
    document = cli_json("bench", demo_bundle, "--target", "cpu", "--runs", "50", "--record", "r.json")
    assert document["breakdown_ms"].keys() == {*("capture", "prepare", "copy_in", "execute", "copy_out", "postprocess")}
    assert document["breakdown_ms"]["capture"] is None, "no camera was named"
    assert document["breakdown_ms"]["copy_in"] is None and document["breakdown_ms"]["prepare"] > 0
    assert [each["batch"] for each in document["batches"]] == [1, 2, 4, 8]
    record = json.loads(Path("r.json").read_text())
    assert len(record["times_ms"]["int8"]) == 50
    assert record["latency_ms"]["p50"] == pytest.approx(float(np.median(record["times_ms"]["int8"])))


def test_bundles_are_compared_in_turns(demo_bundle: Path, cli_json: CliJson, cli: Callable[..., Any]) -> None:
    flags = (demo_bundle, demo_bundle, "--target", "cpu", "--runs", "100")
    document = cli_json("compare", *flags)
    assert document["ratio_p50"] == pytest.approx(1, rel=0.5)
    assert document["comparable"] and document["differences"] == []
    assert document["engines"][0]["accuracy"]["agreement"] > 0.99
    assert "as long as the first, by medians" in cli("compare", *flags).stdout


def test_records_of_other_clocks_are_told(
    demo_bundle: Path, cli_json: CliJson, cli: Callable[..., Any], refused: Callable[..., str]
) -> None:
    cli_json("bench", demo_bundle, "--target", "cpu", "--runs", "20", "--record", "a.json")
    record = json.loads(Path("a.json").read_text())
    record["machine"]["after"]["power_mode"] = "7W"
    record["times_ms"]["int8"] = [2 * each for each in record["times_ms"]["int8"]]
    Path("b.json").write_text(json.dumps(record))
    same = cli_json("compare", "a.json", "a.json")
    assert same["comparable"] and same["ratio_p50"] == 1
    other = cli_json("compare", "a.json", "b.json")
    assert other["ratio_p50"] == pytest.approx(2)
    assert (other["comparable"], other["differences"]) == (False, ["power mode: None and 7W"])
    assert "not comparable, power mode: None and 7W" in cli("compare", "a.json", "b.json").stderr
    Path("c.json").write_text("{}")
    assert refused(2, "compare", "a.json", "c.json") == (
        "c.json is no record of `edge-resnet bench --record` (KeyError)"
    )


def test_the_histogram_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "h.png"
    path.write_bytes(histogram_png([Latency("int8", "cpu", "a $CPU$", TIMES), Latency("fp32", "cpu", "a CPU", TIMES)]))
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[1] == 1200
    assert (picture < 128).any()
