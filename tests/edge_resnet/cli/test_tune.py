"""``tune``: what it writes is a recipe that builds to what was said of it, and a search goes on where it ended."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import edge_resnet
from edge_resnet.recipe import load_recipe

pytest.importorskip("optuna", reason="needs the extra 'tune'")
CliJson = Callable[..., Any]
Refused = Callable[..., str]
FEW = ("--effort", "fast", "--max-drop", "100")
"""No refinement: trials take a fraction of a second."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def one_cache(own_cache: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All searches here are of one network: its sensitivities are measured once."""
    monkeypatch.setenv("EDGE_RESNET_CACHE", str(kept))


@pytest.fixture
def recipe(recipe_file: Callable[..., Path], demo_onnx: Path) -> Path:
    """An ONNX file has one size, so nothing is exported again."""
    path = recipe_file(model=f'onnx = "{demo_onnx}"')
    path.write_text(re.sub(r"\[preprocessing\]\n(.+\n)+", "", path.read_text()))
    return path


def counted(database: Path) -> int:
    with sqlite3.connect(database) as opened:
        return int(opened.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED')").fetchone()[0])


def test_the_recipe_that_it_writes_builds_to_what_it_said(recipe: Path, cli_json: CliJson) -> None:
    found = cli_json("tune", recipe, *FEW, "--min-fps", "1", "--trials", "4", "-o", "tuned.toml", "--plot", "t.png")
    assert (found["recipe"], found["met"], found["trials"], found["latency"]) == ("tuned.toml", True, 4, "measured")
    assert found["chosen"]["figures"]["sqnr_db"] >= found["own"]["figures"]["sqnr_db"]
    assert Image.open("t.png").width == 1200
    tuned, chosen = load_recipe(Path("tuned.toml")), found["chosen"]
    assert tuned.calibration.method == chosen["settings"]["method"]
    assert list(tuned.quantize.keep_float) == chosen["settings"]["keep_float"]
    text = Path("tuned.toml").read_text()
    assert text.startswith("# Written by `edge-resnet tune` for cpu: trial ") and "# Goal: at least 1 FPS" in text
    report = edge_resnet.build(tuned).accuracy
    assert report is not None and report.drop is not None
    halves = [chosen["figures"], chosen["unseen"]]
    assert report.images == sum(half["images"] for half in halves) == 40
    for key, whole in (("drop", report.drop.points), ("agreement", 1 - report.changed)):
        assert whole == pytest.approx(sum(half[key] * half["images"] for half in halves) / 40), key


def test_a_search_goes_on_and_the_first_trial_is_the_recipe(recipe: Path, cli_json: CliJson) -> None:
    command = ("tune", recipe, *FEW, "--trials")
    first = cli_json(*command, "2")
    assert (first["trials"], first["storage"]) == (2, "tuned.db")
    assert first["own"]["number"] == 0 and first["own"]["settings"]["method"] == load_recipe(recipe).calibration.method
    more = cli_json(*command, "3")
    assert (more["trials"], counted(Path("tuned.db"))) == (3, 3)
    again = cli_json(*command, "3")
    assert (again["trials"], again["chosen"]["figures"]) == (3, more["chosen"]["figures"]), "nothing was tried anew"
    assert [each["number"] for each in again["front"]] == [each["number"] for each in more["front"]]


def test_what_is_interrupted_gives_what_it_found(
    recipe: Path, cli: Callable[..., Any], cli_json: CliJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_resnet.tuning.workshop import Workshop

    whole = Workshop.make

    def interrupted(self: Workshop, settings: Any) -> Any:
        if settings != self.own:
            raise KeyboardInterrupt
        return whole(self, settings)

    with monkeypatch.context() as patched:
        patched.setattr(Workshop, "make", interrupted)
        stopped = cli("tune", recipe, *FEW, "--trials", "3", "--json")
    document = json.loads(stopped.stdout)
    assert (stopped.returncode, document["interrupted"], document["trials"]) == (0, True, 1)
    assert "interrupted after 1 of 3 trials: the same command goes on, from tuned.db" in stopped.stderr
    assert load_recipe(Path("tuned.toml")).quantize.refine == ("exact-input",)
    assert cli_json("tune", recipe, *FEW, "--trials", "3")["trials"] == 3


def test_a_goal_that_nothing_meets(recipe: Path, cli: Callable[..., Any]) -> None:
    failed = cli("tune", recipe, *FEW, "--min-fps", "1e9", "--trials", "1", "--json")
    document = json.loads(failed.stdout)
    assert (failed.returncode, document["met"], document["recipe"]) == (3, False, None)
    assert failed.stderr.count("\n") == 1 and "none of 1 trials has 1e+09 FPS" in failed.stderr
    assert "the nearest, trial 0, has" in failed.stderr and not Path("tuned.toml").exists()


def test_a_device_that_is_not_here_is_estimated(recipe_file: Callable[..., Path], cli: Callable[..., Any]) -> None:
    shown = cli("tune", recipe_file(), *FEW, "--target", "jetson-orin-nano", "--trials", "2").stdout
    assert "latency is an ESTIMATE: jetson-orin-nano is not here" in shown and "(predicted)" in shown
    assert load_recipe(Path("tuned.toml")).build.targets == ("jetson-orin-nano",)
    assert "Latency is an ESTIMATE, accuracy predicted" in Path("tuned.toml").read_text()


@pytest.fixture
def searched(recipe: Path, cli_json: CliJson) -> Iterator[Path]:
    cli_json("tune", recipe, *FEW, "--trials", "1", "--storage", "s.db")
    yield recipe


def test_storages_that_are_refused(searched: Path, refused: Refused) -> None:
    command = ("tune", searched, *FEW, "--trials", "1", "-o", "new.toml", "--storage")
    searched.write_text(searched.read_text().replace('effort = "fast"', 'effort = "fast"\nrefine = []'))
    assert "'s.db' holds the search of another recipe" in refused(2, *command, "s.db")
    Path("text.db").write_text("somebody's")
    assert "'text.db' is no database of a search" in refused(2, *command, "text.db")
    with sqlite3.connect("other.db") as other:
        other.execute("create table theirs (x)")
    assert "'other.db' is no database of a search" in refused(2, *command, "other.db")
    assert "the folder 'no' does not exist" in refused(2, *command, "no/s.db")


def test_what_it_refuses(
    recipe: Path, recipe_file: Callable[..., Path], few: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--min-fps is 0: give frames a second" in refused(2, "tune", recipe, *FEW, "--min-fps", "0")
    assert "--max-drop is 101" in refused(2, "tune", recipe, "--max-drop", "101")
    assert "--effort is 'slow': choose one of fast, standard, best" in refused(
        2, "tune", recipe, "--max-drop", "1", "--effort", "slow"
    )
    assert "for 'rtx'" in refused(2, "tune", recipe, *FEW, "--target", "rtx"), "nobody knows how fast INT8 is there"
    without = recipe_file(accuracy="")
    assert "[accuracy] has no images" in refused(2, "tune", without, *FEW)
    flat = recipe_file(accuracy=f'images = "{few / "test" / "bag"}"')
    assert "has no labels" in refused(2, "tune", flat, *FEW)
    monkeypatch.setitem(sys.modules, "optuna", None)
    why = "this command needs optuna, which is not installed: pip install 'edge-resnet[tune]'"
    assert refused(4, "tune", recipe, *FEW) == why
