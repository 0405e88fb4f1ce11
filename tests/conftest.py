"""What several tests share: the demo bundle, built once; small sets of its images; the command line in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import ray_nodes  # noqa: F401  # Ray reads its settings when a first test file imports it
from PIL import Image

import edge_resnet
from edge_resnet import demo
from edge_resnet.cli import main
from edge_resnet.demo import demo_recipe
from edge_resnet.labels import read_labels
from edge_resnet.preprocessing import NAMED
from edge_resnet.recipe import AccuracyRecipe, BuildRecipe, CalibrationRecipe, QuantizeRecipe, Recipe
from edge_resnet.stage_cache import StageCache

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""For torch, which is not loaded yet, and in processes that tests start. The networks here are small: threads that wait
for each other make the tests several times slower on a busy machine, and hardly faster on an idle one."""

DEMO_WEIGHTS = demo.FOLDER / "resnet20-fashion-mnist.safetensors"
DEMO_LABELS = demo.FOLDER / "labels.txt"
RECIPE = """
[model]
{model}

[preprocessing]
size = 28
crop = "none"
interpolation = "bilinear"
color = "gray"
mean = [0.2860]
std = [0.3530]

[calibration]
images = "{calibration}"

[quantize]
effort = "{effort}"

[accuracy]
{accuracy}

[build]
report = false
{build}
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=_absolute, metavar="F.edge", help="The demo's bundle, where it cannot be built.")


def _absolute(text: str) -> Path:
    """Tests change the working folder."""
    return Path(text).resolve()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's builds keep what they finish: a folder of its own, for some of them put doubles into the line."""
    folder = tmp_path_factory.getbasetemp() / f"cache-{next(_CACHES)}"
    monkeypatch.setenv("EDGE_RESNET_CACHE", str(folder))
    return folder


_CACHES = count()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo's builds keep, for those tests that only want the demo built; all workers of this run share it."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared-cache"


@pytest.fixture(scope="session")
def demo_build(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> edge_resnet.BuildResult:
    """What building the demo gave, for the CPU and for TensorRT-RTX."""
    pytest.importorskip("onnx", reason="building needs the extra 'build'")
    recipe = demo_recipe()
    output = tmp_path_factory.mktemp("demo") / "fashion-mnist.edge"
    recipe = replace(recipe, build=replace(recipe.build, output=output))
    return edge_resnet.build(recipe, cache=StageCache(shared_cache / "stages"))


@pytest.fixture(scope="session")
def demo_bundle(request: pytest.FixtureRequest) -> Path:
    """The demo's bundle, that of ``--bundle`` or built; not to be written to, nor beside it."""
    given: Path | None = request.config.getoption("--bundle")
    if given is not None:
        return given
    built: edge_resnet.BuildResult = request.getfixturevalue("demo_build")
    assert built.bundle is not None
    return Path(built.bundle)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the demo's images, a folder a class: three each in ``calibration``, four each in ``test``."""
    root = tmp_path_factory.mktemp("few")
    for name, source, number in (("calibration", demo.CALIBRATION, 3), ("test", demo.TEST, 4)):
        for folder in source.iterdir():
            (root / name / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:number]:
                shutil.copy(path, root / name / folder.name)
    return root


def small(few: Path, output: Path, precision: str = "int8") -> Recipe:
    """The demo for the CPU alone, on few images, without refinement: builds in a fraction of a second."""
    return replace(
        demo_recipe(),
        calibration=CalibrationRecipe(few / "calibration"),
        quantize=QuantizeRecipe(effort="fast"),
        accuracy=AccuracyRecipe(few / "test"),
        build=BuildRecipe(precision=precision, targets=("cpu",), output=output, report=False),
    )


@pytest.fixture
def small_recipe(few: Path, tmp_path: Path) -> Recipe:
    """See ``small``."""
    return small(few, tmp_path / "model.edge")


@pytest.fixture(scope="session")
def quick_bundle(few: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """What ``small`` gives, for tests that need a network but not a good one; not to be written to, nor beside it.

    It is that of ``--bundle`` where one is given.
    """
    given: Path | None = request.config.getoption("--bundle")
    if given is not None:
        return given
    path = tmp_path_factory.mktemp("quick") / "model.edge"
    edge_resnet.build(small(few, path))
    return path


@pytest.fixture(scope="session")
def fp32_bundle(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in FP32; not to be written to, nor beside it."""
    path = tmp_path_factory.mktemp("fp32") / "model.edge"
    edge_resnet.build(small(few, path, "fp32"))
    return path


@pytest.fixture
def recipe_file(few: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes ``small_recipe`` as a file; keyword arguments replace the lines of a table."""

    def write(
        *,
        model: str = f'arch = "resnet20"\nweights = "{DEMO_WEIGHTS}"\nlabels = "{DEMO_LABELS}"',
        calibration: Path = few / "calibration",
        accuracy: str = f'images = "{few / "test"}"',
        build: str = "",
        effort: str = "fast",
    ) -> Path:
        path = tmp_path / "edge-resnet.toml"
        values = {"model": model, "calibration": calibration, "accuracy": accuracy, "build": build, "effort": effort}
        path.write_text(RECIPE.format(**values), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def demo_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's network as FP32 ONNX, with preprocessing and labels."""
    pytest.importorskip("onnx", reason="exporting needs the extra 'build'")
    from edge_resnet.export import export_onnx  # torch takes seconds to import: only for the tests that need it
    from edge_resnet.onnx_file import save_onnx
    from edge_resnet.weights import load_model

    path = tmp_path_factory.mktemp("onnx") / "demo.onnx"
    model = load_model("resnet20", DEMO_WEIGHTS)
    save_onnx(export_onnx(model, NAMED["fashion-mnist"], read_labels(DEMO_LABELS)), path)
    return path


@pytest.fixture(scope="session")
def sneaker() -> Path:
    """An image of the demo that every engine gets right."""
    return demo.TEST / "sneaker" / "00009.png"


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs a command line in this process and in an empty folder, ``tmp_path``; an unforeseen error is raised."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path | float) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["edge-resnet", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def cli_json(cli: Cli) -> Callable[..., object]:
    """Runs a command with ``--json`` that must succeed; gives the document."""

    def run(*arguments: str | Path | float) -> object:
        result = cli(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must be refused with one line and an exit code, leaving every file as it was; gives the line."""

    def run(code: int, *arguments: str | Path | float) -> str:
        before = _contents(tmp_path)
        result = cli(*arguments)
        assert (result.returncode, result.stdout) == (code, ""), result.stderr
        assert result.stderr.startswith("edge-resnet: ") and result.stderr.count("\n") == 1, result.stderr
        assert _contents(tmp_path) == before
        return result.stderr.removeprefix("edge-resnet: ").rstrip("\n")

    return run


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def ten_frames() -> npt.NDArray[np.uint8]:
    """A test image of each of the demo's classes, uint8 10×28×28×1; the network takes them as they are."""
    paths = [sorted(folder.iterdir())[0] for folder in sorted(demo.TEST.iterdir())]
    return np.stack([np.asarray(Image.open(path))[:, :, np.newaxis] for path in paths])
