"""A build on the nodes of a real Ray cluster, against the same build without one; and nodes that are lost or wrong."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import edge_resnet
from edge_resnet.bundle import open_bundle
from edge_resnet.cli._console import BarProgress
from edge_resnet.engines import cuda
from edge_resnet.errors import EngineError, UnavailableError
from edge_resnet.farm.farm import Farm, farm_at
from edge_resnet.progress import Progress
from edge_resnet.recipe import Recipe
from tests.support.ray_nodes import ray_cluster

Cli = Callable[..., Any]
pytestmark = pytest.mark.skipif(
    cuda.gpu_sm() is not None, reason="what is deferred and predicted here differs on a GPU"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Each node has one CPU, so it does one thing at a time; the last test kills both."""
    with ray_cluster({"rtx-30": 1, "rtx-40": 1, "rtx-20": 1}, {"rtx-50": 1, "cpu": 1, "rtx-20": 1}) as made:
        yield made


@pytest.fixture
def farm(cluster: Any) -> Iterator[Farm]:
    with farm_at(cluster.address) as connected:
        yield connected


def for_targets(recipe: Recipe, *targets: str, **options: object) -> Recipe:
    engine = replace(recipe.engine, **options)  # type: ignore[arg-type]
    return replace(recipe, build=replace(recipe.build, targets=targets), engine=engine)


class Watched(Progress):
    """Calls a function with the name of a stage that begins, and knows when each began and ended."""

    def __init__(self, begun: Callable[[str], None] = lambda name: None) -> None:
        self._begun = begun
        self._open = ""
        self.times: dict[str, tuple[float, float]] = {}
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        start, self._open = time.monotonic(), name
        self._begun(name)
        yield
        self.times[name] = start, time.monotonic()

    def update_phase(self, phase: str, done: int, total: int) -> None:
        self._begun(f"{self._open}: {phase}")

    def note(self, text: str) -> None:
        self.notes.append(text)


def members(bundle: str | None) -> dict[str, bytes]:
    assert bundle is not None
    opened = open_bundle(Path(bundle))
    return {name: opened.read(name) for name in opened.names}


def test_the_bundle_is_that_of_one_machine(cluster: Any, small_recipe: Recipe, tmp_path: Path) -> None:
    """On two nodes at the same time: each compilation waits until the other has its device too."""
    recipe = for_targets(small_recipe, "cpu", "rtx-30", "rtx-50", "jetson-orin-nano")
    both = threading.Barrier(2, timeout=60)

    def wait(name: str) -> None:
        if name in ("compile for rtx-30", "compile for rtx-50"):  # once each, and not with every phase that is seen
            both.wait()

    with farm_at(cluster.address) as farm:
        away = edge_resnet.build(recipe, Watched(wait), farm=farm)
    (tmp_path / "here").mkdir()
    here = edge_resnet.build(replace(recipe, build=replace(recipe.build, output=tmp_path / "here" / "model.edge")))
    assert away.failures == here.failures == ()
    found, same = members(away.bundle), members(here.bundle)
    compilers_own = {f"{folder}/{name}" for folder in ("engines", "logs") for name in ("rtx-30", "rtx-50")}
    assert set(found) == set(same)
    for name in found:
        assert found[name] == same[name] or Path(name).with_suffix("").as_posix() in compilers_own, name
    assert open_bundle(recipe.build.output).manifest == open_bundle(tmp_path / "here" / "model.edge").manifest
    for target, alone in zip(away.targets, here.targets, strict=True):
        assert (target.worker is None) == (target.target == "jetson-orin-nano") and alone.worker is None
        assert target.layers_by_precision == alone.layers_by_precision
        assert (target.engine, target.verified, target.next) == (alone.engine, alone.verified, alone.next)
    orin, alone = away.targets[-1], here.targets[-1]
    assert (orin.verified, alone.verified) == ("deferred", "deferred")
    assert orin.why == f"{alone.why}; and no worker of the cluster offers jetson-orin-nano"
    names = [stage.name for stage in away.stages]
    assert set(names) == {stage.name for stage in here.stages} | {
        f"worker for {e}" for e in ("cpu", "rtx-30", "rtx-50")
    }
    assert len(names) == len(set(names)), "each scheme is made once"


def test_targets_of_one_device_wait_for_each_other_and_one_that_fails_costs_no_other(
    farm: Farm, small_recipe: Recipe
) -> None:
    watched = Watched()
    result = edge_resnet.build(
        for_targets(small_recipe, "cpu", "rtx-30", "rtx-40", optimization_level=0), watched, farm=farm
    )
    cpu, *others = result.targets
    assert cpu.verified == "failed" and [type(failure) for failure in result.failures] == [EngineError]
    assert cpu.why is not None and cpu.why.startswith("ONNX Runtime ")
    assert "has no option optimization_level" in cpu.why, "in the worker's own words"
    assert [each.verified for each in others] == ["predicted", "predicted"]
    assert set(members(result.bundle)) >= {"engines/rtx-30.engine", "engines/rtx-40.engine"}
    spans = [
        (watched.times[f"compile for {name}"][0], watched.times[f"check {name}"][1]) for name in ("rtx-30", "rtx-40")
    ]
    first, second = sorted(spans)
    assert first[1] <= second[0]


def test_a_worker_of_another_version_is_refused_by_name(
    farm: Farm, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_resnet.farm.ray_farm.__version__", "9.9")
    result = edge_resnet.build(for_targets(small_recipe, "cpu"), farm=farm)
    (failure,) = result.failures
    assert isinstance(failure, UnavailableError) and result.bundle is None
    assert f"(127.0.0.1) has edge-resnet {edge_resnet.__version__}, and this is 9.9: install the same" in str(failure)


def test_a_worker_that_lacks_the_package_says_what_to_install(
    farm: Farm, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One where it is older and has no farm, in truth: here, the worker's class is in a module of this process alone."""
    import ray

    only_here = ModuleType("only_here")
    only_here.Workshop = type(
        "Workshop", (), {"__module__": "only_here", "__init__": lambda self, kind: None, "introduce": lambda self: {}}
    )  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", only_here)
    monkeypatch.setattr("edge_resnet.farm.ray_farm._Workshop", ray.remote(only_here.Workshop))
    (failure,) = edge_resnet.build(for_targets(small_recipe, "cpu"), farm=farm).failures
    assert isinstance(failure, UnavailableError)
    assert str(failure) == (
        "a worker cannot begin (ModuleNotFoundError: No module named 'only_here'): "
        f"install edge-resnet {edge_resnet.__version__} there, and start its `ray start` anew"
    )


def test_an_interrupted_build_gives_its_devices_back(farm: Farm, small_recipe: Recipe) -> None:
    def interrupt(name: str) -> None:
        if name == "compile for cpu":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edge_resnet.build(for_targets(small_recipe, "cpu", "rtx-30"), Watched(interrupt), farm=farm)
    import ray  # not before ``ray_nodes``, which says how

    waiting = time.monotonic() + 30
    while not ray.available_resources().keys() >= {"cpu", "rtx-30"}:
        assert time.monotonic() < waiting
        time.sleep(0.1)


def test_the_command_says_where_each_target_was_built(
    cluster: Any, recipe_file: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    recipe = recipe_file(build='output = "out.edge"')
    shown = cli("build", recipe, "--target", "cpu", "--ray", cluster.address)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^cpu: by the worker .+ \(127\.0\.0\.1\)$", shown.stdout, re.MULTILINE)
    assert re.search(r"Accuracy of 'cpu' on 40 images, measured on the worker .+ \(127\.0\.0\.1\)", shown.stdout)
    assert open_bundle(tmp_path / "out.edge").manifest.engines[0].verified == "measured"


def busy_node(cluster: Any) -> Any:
    """The node whose raylet has a process that compiles."""
    for node in cluster.worker_nodes:
        raylet = node.all_processes["raylet"][0].process.pid
        children = " ".join(path.read_text() for path in Path(f"/proc/{raylet}/task").glob("*/children")).split()
        if any(b"Workshop" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children):
            return node
    raise AssertionError("no node compiles")


def test_a_target_whose_node_is_killed_is_built_on_another_and_fails_when_there_is_none(
    cluster: Any, small_recipe: Recipe, recipe_file: Callable[..., Path], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of the cluster."""
    killed = []

    def kill_one(name: str) -> None:
        """As its worker is about to compile for the first time."""
        if name.startswith("compile for rtx-20") and not killed:
            killed.append(busy_node(cluster))
            cluster.remove_node(killed[0], allow_graceful=False)

    half = replace(small_recipe, build=replace(small_recipe.build, precision="fp16"))
    with farm_at(cluster.address) as farm:
        first = edge_resnet.build(for_targets(half, "rtx-20"), watched := Watched(kill_one), farm=farm)
    assert first.failures == () and "engines/rtx-20.engine" in members(first.bundle) and len(killed) == 1
    assert re.fullmatch(r"rtx-20: the worker .+ was lost", *watched.notes)

    killed.clear()
    monkeypatch.setattr(BarProgress, "beside", lambda self: Watched(kill_one))
    flags = ("--precision", "fp16", "--target", "rtx-20", "--target", "rtx", "--ray", cluster.address, "--json")
    second = cli("build", recipe_file(build='output = "out.edge"'), *flags)
    assert second.returncode == 3, "the other target is written"
    assert re.fullmatch(
        r"edge-resnet: the worker .+ was lost while it built for rtx-20, and no other worker offers that: .+\n",
        second.stderr,
    )
    document = json.loads(second.stdout)  # Ray has printed the dead node's log meanwhile, elsewhere
    assert [each["verified"] for each in document["targets"]] == ["failed", "predicted"]
    assert "engines/rtx.engine" in members(document["bundle"]), "built here"
