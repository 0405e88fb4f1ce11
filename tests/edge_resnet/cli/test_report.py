"""The page about a bundle: what it says is what the bundle and ``check`` say, and it stands alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import edge_resnet
from edge_resnet.bundle import open_bundle
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.images import open_images
from edge_resnet.progress import Progress
from edge_resnet.recipe import Recipe
from edge_resnet.report.making import write_report


class Page(HTMLParser):
    """What a page asks for, the elements it has, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.asks: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asks += [str(value) for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += f" {' '.join(data.split())}"


@pytest.fixture(scope="module")
def report(demo_bundle: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about the demo, with a few images."""
    path = tmp_path_factory.mktemp("report") / "demo.html"
    write_report([demo_bundle], path, open_images(few / "test"), Progress())
    return path


def test_it_stands_alone(report: Path) -> None:
    page = Page(report)
    assert all(each.startswith("data:") for each in page.asks)
    assert not {"script", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", report.read_text(encoding="utf-8"))
    assert report.stat().st_size < 1_000_000


def test_it_says_what_the_bundle_says(report: Path, demo_bundle: Path) -> None:
    text, manifest = Page(report).text, open_bundle(demo_bundle).manifest
    assert "✓ passed, in part predicted" in text  # the engine for RTX has not run
    assert manifest.accuracy is not None
    for target in ("cpu", "rtx"):
        judged = manifest.accuracy[target]
        assert isinstance(judged, dict)
        assert f"{100 * judged['engine']['top1']:.2f} %" in text and f"{judged['logit_sqnr_db']:.1f} dB" in text
    assert open_bundle(demo_bundle).digest in text
    for layer in ("layer1.0.conv1", "layer3.2.conv2", "fc", "layer2.1.add"):
        assert layer in text
    assert "28 of 30 layers read INT8" in text
    assert "rtx: no engine of" in text  # why its speed is not there


def test_images_that_changed_are_those_that_check_counts(
    demo_bundle: Path, few: Path, cli_json: Callable[..., Any], tmp_path: Path
) -> None:
    checked = cli_json("check", demo_bundle, "--images", few / "test", "--target", "cpu")
    shutil.copy(demo_bundle, tmp_path / "demo.edge")
    document = cli_json("report", "demo.edge", "--images", few / "test")
    assert document["report"] == "demo.report.html"
    page = Page(tmp_path / "demo.report.html")
    assert document["bytes"] == (tmp_path / "demo.report.html").stat().st_size
    changed = round((1 - checked["agreement"]) * checked["images"])
    assert (f"{changed} of {checked['images']} images" if changed else f"None of {checked['images']}") in page.text


def test_two_bundles_stand_side_by_side(demo_bundle: Path, small_recipe: Recipe, cli: Callable[..., Any]) -> None:
    other = replace(small_recipe, build=replace(small_recipe.build, precision="fp32"))
    assert edge_resnet.build(other).report is None
    result = cli("report", demo_bundle, small_recipe.build.output, "-o", "both.html")
    assert (result.returncode, result.stdout[:15]) == (0, "wrote both.html")
    text = Page(small_recipe.build.output.with_name("both.html")).text
    assert "Side by side" in text and "fashion-mnist.edge against model.edge" in re.sub(r"\s+", " ", text)
    assert "identical" in text  # FP32 against itself


def test_an_engine_that_is_not_for_this_host_costs_its_own_part_alone(
    quick_bundle: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtEngine, "why_not_load", lambda versions: "it was compiled for another processor")
    path = tmp_path / "report.html"
    write_report([quick_bundle], path, open_images(few / "test"), Progress())
    text = Page(path).text
    assert "it was compiled for another processor" in text and "What do the ranges keep?" in text
    assert "Which answers changed?" not in text


def test_a_build_writes_it_beside_the_bundle(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, build=replace(small_recipe.build, report=True))
    result = edge_resnet.build(recipe)
    path = recipe.build.output.with_name("model.report.html")
    assert result.report == result.to_json()["report"] == str(path)
    assert "✓ passed" in Page(path).text and "cpu" in Page(path).text


def test_a_bundle_stands_without_its_report(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, build=replace(small_recipe.build, report=True))
    recipe.build.output.with_name("model.report.html").mkdir()
    result = edge_resnet.build(recipe)
    assert result.report is None and result.bundle is not None
    open_bundle(Path(result.bundle)).verify_members()


def test_what_names_say_is_text_and_nothing_else(small_recipe: Recipe, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    assert small_recipe.model.labels is not None
    names = small_recipe.model.labels.read_text(encoding="utf-8").splitlines()
    labels.write_text("\n".join(["<script>alert(1)</script>", *names[1:]]), encoding="utf-8")
    recipe = replace(
        small_recipe,
        model=replace(small_recipe.model, labels=labels),
        accuracy=replace(small_recipe.accuracy, images=None),
        build=replace(small_recipe.build, report=True, output=tmp_path / "<b>&.edge"),
    )
    edge_resnet.build(recipe)
    page = Page(tmp_path / "<b>&.report.html")
    assert "<b>&.edge" in page.text and not {"script", "b>&.edge"} & set(page.tags)


def test_it_is_refused_where_it_cannot_be(demo_bundle: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    message = refused(2, "report", tmp_path / "none.edge")
    assert "none.edge" in message
    assert "does not exist: create it first" in refused(2, "report", demo_bundle, "-o", tmp_path / "no" / "page.html")
