"""``sensitivity``: what it prints is what ``quantize`` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from edge_resnet.models import create_model
from edge_resnet.onnx_file import ARCHITECTURE_KEY

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


def test_a_drop_is_asked_for_as_the_noise_that_changes_so_many_answers(
    demo_onnx: Path, table: str, cli: Callable[..., Any]
) -> None:
    shown = cli("sensitivity", demo_onnx, "--table", table, "--limit", "1", "--max-drop", "0.5").stdout
    assert "to reach 38.06 dB leave float" in shown, "0.40 · 10^(-38.06/20) = 0.5 %"


def test_it_draws(demo_onnx: Path, table: str, cli: Callable[..., Any], cli_json: CliJson) -> None:
    command = ("sensitivity", demo_onnx, "--table", table, "--limit", "2", "--plot")
    assert cli_json(*command, "f.png", "--sqnr", "44")["plot"] == "f.png"
    assert "wrote g.PNG" in cli(*command, "g.PNG").stdout
    for name in ("f.png", "g.PNG"):
        assert Image.open(name).format == "PNG"
    assert cli_json(*command[:-1])["plot"] is None


def test_rows_name_the_modules_of_torch(demo_onnx: Path, table: str, cli_json: CliJson) -> None:
    modules = dict(create_model("resnet20", channels=1, classes=10).named_modules())
    ours = cli_json("sensitivity", demo_onnx, "--table", table, "--limit", "1")["layers"]
    assert {type(modules[row["module"]]).__name__ for row in ours} == {"Conv2d", "Add"}
    foreign = onnx.load(demo_onnx)
    (said,) = [prop for prop in foreign.metadata_props if prop.key == ARCHITECTURE_KEY]
    foreign.metadata_props.remove(said)
    onnx.save(foreign, "foreign.onnx")
    theirs = cli_json("sensitivity", "foreign.onnx", "--table", table, "--limit", "1")["layers"]
    assert [{**row, "module": None} for row in ours] == theirs


def test_what_it_cannot_draw_is_said_before_any_work(
    demo_onnx: Path, table: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sensitivity", demo_onnx, "--table", "no-such-table.json", "--plot")
    assert "'f.svg': the picture is a PNG file" in refused(2, *command, "f.svg")
    assert "the folder 'no/where' does not exist" in refused(2, *command, "no/where/f.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    why = "this command needs matplotlib, which is not installed: pip install 'edge-resnet[plots]'"
    assert refused(4, *command, "f.png") == why


def test_what_it_refuses(demo_onnx: Path, table: str, refused: Refused) -> None:
    assert "no calibration table at x.json" in refused(2, "sensitivity", demo_onnx, "--table", "x.json")
    both = refused(2, "sensitivity", demo_onnx, "--table", table, "--sqnr", "30", "--max-drop", "1")
    assert both == "--sqnr and --max-drop ask for the same thing: give one of them"
    assert "the drop is 0 points" in refused(2, "sensitivity", demo_onnx, "--table", table, "--max-drop", "0")
    assert "unknown scheme 'int4'" in refused(2, "sensitivity", demo_onnx, "--table", table, "--scheme", "int4")
