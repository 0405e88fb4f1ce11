"""The whole line: what the demo's bundle holds against its parts run by hand, and builds that fail."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import edge_resnet
from edge_resnet import build_target, demo
from edge_resnet.accuracy import Run, paired_drop
from edge_resnet.bundle import FP32_MEMBER, QDQ_MEMBER, open_bundle
from edge_resnet.chain import BuildResult, build
from edge_resnet.check import Contestant, check
from edge_resnet.compiling import compile_source
from edge_resnet.engines import cuda
from edge_resnet.errors import (
    CalibrationError,
    EdgeResnetError,
    EngineError,
    GateError,
    ImageError,
    ModelError,
    OutputError,
    RecipeError,
)
from edge_resnet.golden import read_golden
from edge_resnet.images import open_images
from edge_resnet.preprocessing import NAMED
from edge_resnet.progress import Progress
from edge_resnet.recipe import AccuracyRecipe, ModelRecipe, QuantizeRecipe, Recipe, load_recipe

HERE_OR_NOT = "predicted" if cuda.gpu_sm() is None else "measured"
"""How the engine for RTX is judged on this host."""


def at(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, build=replace(recipe.build, **changes))  # type: ignore[arg-type]


# The demo.


def logits_of(model: bytes, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return onnxruntime.InferenceSession(model).run(None, {"frames": frames})[0]


def test_the_demo_is_built_for_the_cpu_and_for_rtx(demo_build: BuildResult, demo_bundle: Path) -> None:
    assert demo_build.failures == ()
    assert demo_build.precision == "int8"
    cpu, rtx = demo_build.targets
    assert (cpu.target, cpu.verified, rtx.target, rtx.verified) == ("cpu", "measured", "rtx", HERE_OR_NOT)
    bundle = open_bundle(demo_bundle)
    bundle.verify_members()
    for result in (cpu, rtx):
        assert result.engine is not None and result.seconds is not None and result.next is None
        assert result.bytes == len(bundle.read(result.engine)) > 100_000
    assert set(bundle.names) == {
        "engines/cpu.onnx",
        "engines/rtx.engine",
        "golden/cpu.npy",
        "golden/fp32.npy",
        "drift.json",
        "golden/frames.npy",
        "golden/rtx.npy",
        "logs/rtx.log",
        "sbom.cdx.json",
        FP32_MEMBER,
        QDQ_MEMBER,
    }
    names = [stage.name for stage in demo_build.stages]
    assert names[:3] == ["export", "calibrate", "quantize for cpu"] and names[-2:] == ["bundle", "report"]
    assert all(stage.seconds > 0 and stage.peak_mb > 50 for stage in demo_build.stages)


def test_the_accuracy_of_the_demo_is_that_of_its_parts_run_by_hand(demo_build: BuildResult, demo_bundle: Path) -> None:
    bundle, images = open_bundle(demo_bundle), open_images(demo.TEST).with_labels_of(bundle_labels(demo_bundle))
    frames, truth = images.pixels(NAMED["fashion-mnist"]), np.array(images.labels)
    fp32, cpu = logits_of(bundle.read(FP32_MEMBER), frames), logits_of(bundle.read("engines/cpu.onnx"), frames)
    right, still = fp32.argmax(1) == truth, cpu.argmax(1) == truth
    found = demo_build.accuracy
    assert found is not None and found is demo_build.targets[0].accuracy
    assert (found.images, found.evaluated, found.engine_name) == (1000, "measured", "cpu")
    assert found.fp32.top1 == pytest.approx(right.mean())
    assert found.engine.top1 == pytest.approx(still.mean(), abs=0.0021)  # another batch may round a sum otherwise
    assert found.agreement == pytest.approx((fp32.argmax(1) == cpu.argmax(1)).mean(), abs=0.0021)
    noise = np.square(fp32.astype(float) - cpu).sum()
    assert found.logit_sqnr_db == pytest.approx(10 * np.log10(np.square(fp32.astype(float)).sum() / noise), abs=0.1)
    assert found.fp32.top1 > 0.94 and found.agreement > 0.99 and found.passed
    lost, won = int((right & ~still).sum()), int((~right & still).sum())
    assert found.drop is not None
    assert found.drop.points == pytest.approx(paired_drop(lost, won, 1000).points, abs=0.21)


def bundle_labels(path: Path) -> tuple[str, ...]:
    return open_bundle(path).manifest.labels


def test_the_manifest_says_what_the_bundle_was_made_from(demo_build: BuildResult, demo_bundle: Path) -> None:
    manifest = open_bundle(demo_bundle).manifest
    assert (manifest.name, manifest.architecture, manifest.precision) == ("fashion-mnist", "resnet20", "int8")
    assert manifest.input_shape == (28, 28, 1)
    assert manifest.labels == tuple((demo.FOLDER / "labels.txt").read_text().split())
    assert manifest.preprocessing == NAMED["fashion-mnist"].to_json()
    assert [(e.target, e.kind, e.verified) for e in manifest.engines] == [
        ("cpu", "onnxruntime", "measured"),
        ("rtx", "tensorrt-rtx", HERE_OR_NOT),
    ]
    assert manifest.calibration is not None and manifest.accuracy is not None
    images = manifest.calibration["images"]
    assert isinstance(images, dict)
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in demo.CALIBRATION.rglob("*.png")]
    assert sorted(images["sha256"]) == sorted(files) and len(files) == images["images"] == 500
    assert manifest.calibration["method"] == "mse"
    reports = {result.target: result.accuracy for result in demo_build.targets}
    assert manifest.accuracy == {name: json.loads(json.dumps(r.to_json())) for name, r in reports.items() if r}


def test_the_bundle_holds_the_files_that_other_tools_take(demo_bundle: Path) -> None:
    bundle = open_bundle(demo_bundle)
    for name in (FP32_MEMBER, QDQ_MEMBER, "engines/cpu.onnx"):
        model = onnx.load_from_string(bundle.read(name))
        onnx.checker.check_model(model, full_check=True)
        assert model.opset_import[0].version == 17
    kinds = [node.op_type for node in onnx.load_from_string(bundle.read(QDQ_MEMBER)).graph.node]
    assert kinds.count("Conv") == 19 and kinds.count("QuantizeLinear") >= 19
    assert "QuantizeLinear" not in [n.op_type for n in onnx.load_from_string(bundle.read(FP32_MEMBER)).graph.node]


# The same recipe gives the same bundle.

BUILD_AGAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from edge_resnet.chain import build
from edge_resnet.recipe import load_recipe
recipe = load_recipe(Path(sys.argv[1]))
build(replace(recipe, build=replace(recipe.build, output=Path(sys.argv[2]))))
"""


@pytest.mark.slow
def test_two_builds_give_the_same_bytes(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    recipe = recipe_file(build='targets = ["cpu"]', effort="standard")
    here, there = tmp_path / "here" / "model.edge", tmp_path / "there" / "model.edge"
    here.parent.mkdir()
    there.parent.mkdir()
    build(at(load_recipe(recipe), output=here))
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # the order of sets must not matter
    subprocess.run([sys.executable, "-c", BUILD_AGAIN, recipe, there], env=environment, check=True)
    assert here.read_bytes() == there.read_bytes()


# A target that fails.


def test_a_failing_gate_writes_nothing(small_recipe: Recipe) -> None:
    output = small_recipe.build.output
    output.write_bytes(b"an older bundle")
    result = build(replace(small_recipe, accuracy=replace(small_recipe.accuracy, max_drop=-100.0)))
    assert result.bundle is None
    assert [(t.target, t.verified, t.engine) for t in result.targets] == [("cpu", "failed", None)]
    (failure,) = result.failures
    assert isinstance(failure, GateError) and str(failure) == result.targets[0].why
    assert result.accuracy is not None and not result.accuracy.passed
    assert output.read_bytes() == b"an older bundle"
    assert os.listdir(output.parent) == [output.name]


def test_a_bundle_remembers_what_its_gate_refused(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine for RTX answers the class beside the right one here: only the CPU's comes into the bundle."""

    def check_swapped(reference: Run, contestant: Contestant, *rest: Any, **named: Any) -> Any:
        run = contestant.run if contestant.name == "cpu" else lambda frames: np.roll(contestant.run(frames), 1, axis=1)
        return check(reference, replace(contestant, run=run), *rest, **named)

    monkeypatch.setattr(build_target, "check", check_swapped)
    recipe = replace(small_recipe, build=replace(small_recipe.build, targets=("cpu", "rtx-40")))
    result = build(recipe)
    assert [t.verified for t in result.targets] == ["measured", "failed"]
    manifest = open_bundle(recipe.build.output).manifest
    assert [engine.target for engine in manifest.engines] == ["cpu"]
    assert manifest.accuracy is not None and manifest.accuracy["rtx-40"]["passed"] is False  # type: ignore[index]
    with pytest.raises(GateError, match="a gate that refused this network for rtx-40: .* build it again"):
        compile_source(recipe.build.output, "rtx-30")


def edited_onnx(source: Path, path: Path, edit: Callable[[onnx.GraphProto], None]) -> ModelRecipe:
    model = onnx.load(source)
    edit(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return ModelRecipe(onnx=path)


def beyond_half(graph: onnx.GraphProto) -> None:
    """Makes a bias larger than FP16 holds; the answers stay, for the classifier takes it off again."""
    bias = next(w for w in graph.initializer if w.name == "fc.bias")
    fc = next(node for node in graph.node if node.name == "fc")
    graph.initializer.append(numpy_helper.from_array(np.float32([1e5]), "large"))
    graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1e5), "fc.high"))
    fc.input[2], fc.output[0] = "fc.high", "high"
    graph.node.append(helper.make_node("Sub", ["high", "large"], ["logits"], name="lower"))


def with_determinant(graph: onnx.GraphProto) -> None:
    """Multiplies the logits by the determinant of a unit matrix, an operator that TensorRT-RTX does not have."""
    next(node for node in graph.node if node.output[0] == "logits").output[0] = "before"
    graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "unit"))
    graph.node.append(helper.make_node("Det", ["unit"], ["one"], name="det"))
    graph.node.append(helper.make_node("Mul", ["before", "one"], ["logits"], name="times"))


@pytest.mark.parametrize(
    ("edit", "error", "why"),
    [
        (with_determinant, EngineError, "TensorRT-RTX cannot read the model: Det 'det'"),
        (beyond_half, CalibrationError, "has values beyond 65504, the largest of FP16"),
    ],
)
@pytest.mark.parametrize("order", [("cpu", "rtx"), ("rtx", "cpu")])
def test_of_two_targets_one_failing_leaves_the_other(
    order: tuple[str, str],
    edit: Callable[[onnx.GraphProto], None],
    error: type[EdgeResnetError],
    why: str,
    small_recipe: Recipe,
    demo_onnx: Path,
    tmp_path: Path,
    sneaker: Path,
) -> None:
    model = edited_onnx(demo_onnx, tmp_path / "edited.onnx", edit)
    result = build(replace(at(small_recipe, targets=order), model=model, preprocessing={}))
    assert result.bundle == str(small_recipe.build.output)
    by_name = {target.target: target for target in result.targets}
    assert (by_name["cpu"].verified, by_name["rtx"].verified) == ("measured", "failed")
    (failure,) = result.failures
    assert isinstance(failure, error) and why in str(failure) and by_name["rtx"].why == str(failure)
    assert [entry.target for entry in open_bundle(small_recipe.build.output).manifest.engines] == ["cpu"]
    assert edge_resnet.Classifier(small_recipe.build.output)(sneaker).label == "sneaker"


def test_the_accuracy_of_a_build_is_that_of_the_target_that_did_not_pass(demo_build: BuildResult) -> None:
    cpu, rtx = demo_build.targets
    assert cpu.accuracy is not None and rtx.accuracy is not None
    failed = replace(rtx, accuracy=replace(rtx.accuracy, max_drop=-100.0))
    assert replace(demo_build, targets=(cpu, failed)).accuracy is failed.accuracy
    assert replace(demo_build, targets=(cpu, rtx)).accuracy is cpu.accuracy
    assert replace(demo_build, targets=(replace(cpu, accuracy=None), rtx)).accuracy is rtx.accuracy
    assert replace(demo_build, targets=()).to_json()["accuracy"] is None


def test_a_target_without_the_precision_is_refused_before_any_work(small_recipe: Recipe) -> None:
    for targets, precision in ((("cpu", "rtx-20"), "int8"), (("cpu",), "fp16")):
        with pytest.raises(EngineError, match=f"has no {precision}: choose one of"):
            build(replace(at(small_recipe, targets=targets, precision=precision), model=ModelRecipe(arch="bogus")))
    assert not small_recipe.build.output.exists()


@pytest.mark.skipif(cuda.gpu_sm() == 87, reason="this host is a Jetson Orin")
def test_a_target_that_this_host_cannot_compile_for_is_deferred(small_recipe: Recipe) -> None:
    result = build(at(small_recipe, targets=("jetson-orin-nano", "cpu")))
    assert result.failures == ()
    jetson, cpu = result.targets
    assert (jetson.verified, jetson.engine, jetson.bytes, jetson.accuracy) == ("deferred", None, None, None)
    assert jetson.next == "edge-resnet compile model.edge --target jetson-orin-nano"
    assert jetson.why is not None and "compiles only on the device itself" in jetson.why
    assert cpu.verified == "measured"
    bundle = open_bundle(small_recipe.build.output)
    assert [(entry.target, entry.member) for entry in bundle.manifest.engines] == [
        ("jetson-orin-nano", None),
        ("cpu", "engines/cpu.onnx"),
    ]
    assert QDQ_MEMBER in bundle.names


def test_a_target_is_built_once_however_often_and_however_it_is_written(small_recipe: Recipe) -> None:
    result = build(at(small_recipe, targets=("cpu", "CPU", "cpu")))
    assert [target.target for target in result.targets] == ["cpu"]


# Other precisions, other inputs.


@pytest.mark.parametrize(
    ("precision", "targets"), [("fp32", ("cpu", "rtx-30")), ("fp16", ("rtx-30", "rtx-20", "jetson-thor"))]
)
def test_float_builds_need_no_calibration(precision: str, targets: tuple[str, ...], small_recipe: Recipe) -> None:
    result = build(at(small_recipe, targets=targets, precision=precision))
    assert result.failures == () and len(result.targets) == len(targets)
    assert "calibrate" not in [stage.name for stage in result.stages]
    bundle = open_bundle(small_recipe.build.output)
    assert bundle.manifest.calibration is None and QDQ_MEMBER not in bundle.names
    assert {entry.precision for entry in bundle.manifest.engines} == {precision}
    assert result.accuracy is not None and result.accuracy.passed and result.accuracy.agreement == 1.0
    sqnr = result.accuracy.logit_sqnr_db
    assert (sqnr is None or sqnr > 100) if precision == "fp32" else (sqnr is not None and 50 < sqnr < 90)


def test_an_exported_file_gives_the_bundle_that_its_checkpoint_gives(small_recipe: Recipe, demo_onnx: Path) -> None:
    """All but the account of what it was made from."""
    build(small_recipe)
    from_checkpoint = open_bundle(small_recipe.build.output)
    build(replace(small_recipe, model=ModelRecipe(onnx=demo_onnx), preprocessing={}))
    from_file = open_bundle(small_recipe.build.output)
    assert replace(from_file.manifest, provenance=None) == replace(from_checkpoint.manifest, provenance=None)
    assert from_file.names == from_checkpoint.names
    for name in from_file.names:
        assert from_file.read(name) == from_checkpoint.read(name), name


class Noting(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_classes_without_names_are_said_to_be_matched_by_their_order(small_recipe: Recipe) -> None:
    named, numbered = Noting(), Noting()
    build(small_recipe, named)
    build(replace(small_recipe, model=replace(small_recipe.model, labels=None)), numbered)
    assert [note for note in named.notes if "sorted" in note] == []
    (said,) = [note for note in numbered.notes if "sorted" in note]
    assert str(small_recipe.accuracy.images) in said and "taken for 0, 1, 2 …" in said


def test_a_recipe_that_contradicts_its_onnx_file_is_refused(small_recipe: Recipe, demo_onnx: Path) -> None:
    with_onnx = replace(small_recipe, model=ModelRecipe(onnx=demo_onnx))
    with pytest.raises(RecipeError, match=r"\[preprocessing\] is not the one that .*demo.onnx was exported with"):
        build(replace(with_onnx, preprocessing={**small_recipe.preprocessing, "mean": [0.5]}))
    with pytest.raises(RecipeError, match="classes is 11, but .*demo.onnx has 10: leave it out"):
        build(replace(with_onnx, model=ModelRecipe(onnx=demo_onnx, classes=11)))
    assert not small_recipe.build.output.exists()


def test_a_quantized_file_is_no_source(small_recipe: Recipe, demo_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "q.onnx").write_bytes(open_bundle(demo_bundle).read(QDQ_MEMBER))
    with pytest.raises(ModelError, match="q.onnx is quantized already: give the FP32 ONNX"):
        build(replace(small_recipe, model=ModelRecipe(onnx=tmp_path / "q.onnx"), preprocessing={}))


def test_without_evaluation_images_accuracy_is_not_known(small_recipe: Recipe) -> None:
    result = build(replace(small_recipe, accuracy=AccuracyRecipe()))
    assert result.failures == () and result.accuracy is None
    bundle = open_bundle(small_recipe.build.output)
    assert bundle.manifest.accuracy is None
    known = {frame.tobytes() for frame in open_images(small_recipe.calibration.images).pixels(NAMED["fashion-mnist"])}
    assert {frame.tobytes() for frame in read_golden(bundle, "frames")} <= known


def test_labels_are_numbers_where_there_are_none(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, model=replace(small_recipe.model, labels=None), accuracy=AccuracyRecipe())
    build(recipe)
    assert bundle_labels(recipe.build.output) == tuple(map(str, range(10)))


def test_an_image_in_both_sets_is_refused(small_recipe: Recipe, few: Path, tmp_path: Path) -> None:
    shutil.copytree(few / "test", tmp_path / "mixed")
    stray = next((few / "calibration" / "bag").iterdir())
    shutil.copy(stray, tmp_path / "mixed" / "bag" / "under-another-name.png")
    with pytest.raises(ImageError, match=r"1 of 41 evaluation images were used for calibration, the first is .*name"):
        build(replace(small_recipe, accuracy=AccuracyRecipe(tmp_path / "mixed")))
    assert not small_recipe.build.output.exists()


def test_the_chain_of_a_recipe_is_applied_and_written_down(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, quantize=replace(small_recipe.quantize, refine=()))
    build(recipe)
    bundle = open_bundle(recipe.build.output)
    assert bundle.manifest.calibration is not None and bundle.manifest.calibration["refinements"] == []
    model = onnx.load_from_string(bundle.read(QDQ_MEMBER))
    assert "preprocessing.mul" in {name for node in model.graph.node for name in node.output}, "the input is not exact"


def test_a_build_tells_which_refinement_runs_and_how_far_it_is(small_recipe: Recipe) -> None:
    class Watch(Progress):
        stage_name = ""
        told: ClassVar[list[tuple[str, str, int, int]]] = []

        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Iterator[None]:
            self.stage_name = name
            yield

        def update_phase(self, phase: str, done: int, total: int) -> None:
            self.told.append((self.stage_name, phase, done, total))

    recipe = replace(small_recipe, quantize=QuantizeRecipe(refine=("bias",)))
    build(recipe, Watch())
    refining = [each for each in Watch.told if each[0].startswith("quantize")]
    assert refining[:2] == [("quantize for cpu", "bias: layers", done, 19) for done in (0, 1)]
    assert refining[-1] == ("quantize for tensorrt", "bias: layers", 19, 19)


def test_a_chain_that_cannot_be_applied_is_refused_before_any_work(small_recipe: Recipe, tmp_path: Path) -> None:
    for refine, said in ((("smooth",), "unknown refinement 'smooth'"), (("bias",), "'bias' looks at images")):
        recipe = replace(small_recipe, quantize=replace(small_recipe.quantize, refine=refine))
        with pytest.raises(CalibrationError, match=said):
            build(replace(recipe, model=ModelRecipe(onnx=tmp_path / "not-even-read.onnx")))


def test_a_layer_that_is_no_layer_is_refused_for_all_targets(small_recipe: Recipe) -> None:
    recipe = replace(small_recipe, quantize=replace(small_recipe.quantize, keep_float=("conv1", "layer9.conv1")))
    result = build(recipe)
    assert result.bundle is None and [str(failure) for failure in result.failures] == [
        "keep_float names 'layer9.conv1', which is no node of this model: see `edge-resnet info`"
    ]


def test_an_output_that_cannot_be_written_is_refused_before_any_work(small_recipe: Recipe, tmp_path: Path) -> None:
    bogus = replace(small_recipe, model=ModelRecipe(arch="bogus"))
    with pytest.raises(OutputError, match="does not exist: create it first"):
        build(at(bogus, output=tmp_path / "missing" / "model.edge"))
    with pytest.raises(ModelError, match="unknown architecture 'bogus'"):
        build(bogus)


def test_labels_from_a_list_of_files(small_recipe: Recipe, few: Path, tmp_path: Path) -> None:
    with (tmp_path / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([path, path.parent.name] for path in sorted((few / "test").rglob("*.png")))
    by_folder = build(small_recipe).accuracy
    by_list = build(replace(small_recipe, accuracy=AccuracyRecipe(tmp_path / "test.csv"))).accuracy
    assert by_folder is not None and by_folder == by_list
