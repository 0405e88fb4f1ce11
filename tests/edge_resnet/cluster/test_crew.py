"""``--ray`` against the same command without it: the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.calibration import OBSERVERS
from edge_resnet.cluster.connection import connected
from edge_resnet.cluster.crew import AnswersJob, Crew
from edge_resnet.cluster.work import spread
from edge_resnet.errors import ImageError
from edge_resnet.image_parts import parts_of
from edge_resnet.images import ImageSet, open_images
from edge_resnet.onnx_file import load_onnx
from edge_resnet.preprocessing import NAMED
from edge_resnet.workforce import THIS_MACHINE, FloatNetwork, Workforce

SPEC = NAMED["fashion-mnist"]
pytestmark = pytest.mark.slow
CliJson = Callable[..., Any]
MERGEABLE = [name for name, observer in OBSERVERS.items() if observer.mergeable]


def calibrate(cli_json: CliJson, model: Path, images: Path, output: Path, *more: str) -> bytes:
    cli_json("calibrate", model, "--images", images, "-o", output, *more)
    return output.read_bytes()


def test_a_table_is_the_same_file(address: str, cli_json: CliJson, demo_onnx: Path, few: Path, tmp_path: Path) -> None:
    one = calibrate(cli_json, demo_onnx, few / "calibration", tmp_path / "one.json")
    assert calibrate(cli_json, demo_onnx, few / "calibration", tmp_path / "many.json", "--ray", address) == one


def test_every_method_that_can_be_merged_gives_the_same(address: str, demo_onnx: Path, few: Path) -> None:
    model, images = load_onnx(demo_onnx), open_images(few / "calibration", 25)  # the last part is half a batch
    assert len(MERGEABLE) == 4

    def tables(workforce: Workforce) -> list[str]:
        made = (workforce.calibrate(model, images, SPEC, method, lambda done: None) for method in MERGEABLE)
        return [table.to_json() for table in made]

    with connected(address):
        found = tables(Crew(print))
    assert found == tables(THIS_MACHINE)


def test_sensitivities_and_answers_are_the_same(
    address: str, cli_json: CliJson, demo_onnx: Path, few: Path, tmp_path: Path
) -> None:
    calibrate(cli_json, demo_onnx, few / "calibration", tmp_path / "t.json")
    cli_json("quantize", demo_onnx, "--table", "t.json", "--effort", "fast", "-o", "q.onnx")
    sensitivity = ("sensitivity", demo_onnx, "--table", "t.json", "--limit", "20", "--max-drop", "0.5")
    assert cli_json(*sensitivity) == cli_json(*sensitivity, "--ray", address)
    check = ("check", "q.onnx", "--reference", demo_onnx, "--images", few / "test", "--max-drop", "5")
    assert cli_json(*check) == cli_json(*check, "--ray", address)


def test_an_engine_answers_the_same(address: str, cli_json: CliJson, quick_bundle: Path, few: Path) -> None:
    check = ("check", quick_bundle, "--target", "cpu", "--images", few / "test", "--max-drop", "20")
    one = cli_json(*check)
    assert one["evaluated"] == "measured" and one["logit_sqnr_db"] > 10
    assert cli_json(*check, "--ray", address) == one


def test_a_search_tries_and_finds_the_same(
    address: str, cli_json: CliJson, recipe_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a device that is not here, whose latency is an estimate: measured ones differ from one run to the next."""
    pytest.importorskip("optuna", reason="needs the extra 'tune'")
    found = []
    for name, more in (("one", ()), ("many", ("--ray", address))):
        monkeypatch.setenv("EDGE_RESNET_CACHE", str(tmp_path / f"cache-{name}"))  # nothing of the first is used again
        goal = ("--max-drop", "100", "--min-fps", "1", "--target", "jetson-orin-nano")
        search = ("--trials", "4", "--effort", "fast", "--storage", f"{name}.db", "-o", f"{name}.toml")
        found.append(cli_json("tune", recipe_file(), *goal, *search, *more))
    one, many = ({key: each[key] for key in each if key not in ("recipe", "storage")} for each in found)
    assert len(one["front"]) >= 1 and one["latency"] == "estimate" and one["trials"] == 4
    assert many == one


def test_order_cannot_be_spread(address: str, refused: Callable[..., str], demo_onnx: Path, few: Path) -> None:
    flags = ("--method", "moving-average", "--images", few / "calibration", "-o", "t.json", "--ray", address)
    assert "depends on the order of the images" in refused(2, "calibrate", demo_onnx, *flags)


def test_a_damaged_image_is_named(address: str, refused: Callable[..., str], demo_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(b"no image")
    said = refused(2, "calibrate", demo_onnx, "--images", "flat", "-o", "t.json", "--ray", address)
    assert said.startswith(f"{tmp_path / 'flat' / 'a.png'} is no image")


def test_an_image_that_a_worker_lacks(address: str, demo_onnx: Path, few: Path) -> None:
    """On the machine that sends the work all files are there: here the last is gone once they have been listed."""
    there, gone = next((few / "test").rglob("*.png")), few / "test" / "gone.png"
    job = AnswersJob((FloatNetwork(load_onnx(demo_onnx)),), SPEC)
    parts = parts_of(ImageSet(few, (there, gone, there), None, None), 1, {})
    with connected(address):
        answers = spread(job, parts, print)
        assert next(answers)[0][0].shape == (1, 10)
        with pytest.raises(ImageError, match=f"worker .* lacks {gone}: images must lie at the same path"):
            next(answers)


def test_an_image_that_is_another_one_on_a_worker(few: Path) -> None:
    path = next((few / "test").rglob("*.png"))
    (part,) = parts_of(ImageSet(few, (path,), None, None), 1, {path: "0" * 64})
    with pytest.raises(ImageError, match="is another file on worker .* than here"):
        list(part.batches(SPEC, 1, []))


def test_no_cluster(refused: Callable[..., str], demo_onnx: Path, few: Path) -> None:
    flags = ("--images", few / "calibration", "-o", "t.json", "--ray", "127.0.0.1:1")
    assert "no Ray cluster at 127.0.0.1:1" in refused(4, "calibrate", demo_onnx, *flags)
