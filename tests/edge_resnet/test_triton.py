"""Models for Triton: the configuration as Triton's own protobuf reads it, the files, and that nothing is overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from edge_resnet.bundle import open_bundle
from edge_resnet.chain import build
from edge_resnet.classifier import Classifier
from edge_resnet.companion import companion_path, write_companion
from edge_resnet.demo import demo_recipe
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.errors import OutputError
from edge_resnet.recipe import AccuracyRecipe, BuildRecipe, CalibrationRecipe, QuantizeRecipe
from edge_resnet.triton import Batching, triton_model, write_triton
from edge_resnet.triton_config import Enum, text_format

CliJson = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def bundle(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """INT8, with an engine for the CPU and one, made up, of a Jetson beside it."""
    recipe = replace(
        demo_recipe(),
        calibration=CalibrationRecipe(few / "calibration"),
        quantize=QuantizeRecipe(effort="fast"),
        accuracy=AccuracyRecipe(None),
        build=BuildRecipe(
            targets=("cpu", "jetson-orin-nano"), output=tmp_path_factory.mktemp("bundle") / "model.edge", report=False
        ),
    )
    assert build(recipe).failures == ()
    path = recipe.build.output
    plan = CompiledEngine("tensorrt", b"a plan", (), {"tensorrt": "10.3.0", "sms": "87"})
    write_companion(companion_path(path, "jetson-orin-nano"), "jetson-orin-nano", open_bundle(path).digest, plan, None)
    return path


@pytest.fixture
def parsed() -> Callable[[Path], Any]:
    """Reads a configuration as Triton does: protobuf's text format of its published ModelConfig."""
    published = pytest.importorskip("tritonclient.grpc.model_config_pb2", exc_type=ImportError)
    from google.protobuf import text_format as protobuf

    return lambda path: protobuf.Parse(path.read_text(encoding="ascii"), published.ModelConfig())


def test_triton_reads_the_configuration(bundle: Path, cli_json: CliJson, parsed: Callable[[Path], Any]) -> None:
    flags = ("--target", "jetson-orin-nano", "--max-batch", 4, "--queue-delay-us", 250, "--version", 3, "-o", "models")
    document = cli_json("export-triton", bundle, *flags)
    assert document == {
        "model": "model",
        "version": 3,
        "platform": "tensorrt_plan",
        "file": "models/model/3/model.plan",
    }
    assert Path(document["file"]).read_bytes() == b"a plan"
    config = parsed(Path("models/model/config.pbtxt"))
    assert (config.name, config.platform, config.max_batch_size) == ("model", "tensorrt_plan", 4)
    (frames,), (logits,), (group,) = config.input, config.output, config.instance_group
    types = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name
    assert (frames.name, frames.data_type, list(frames.dims)) == ("frames", types["TYPE_UINT8"].number, [28, 28, 1])
    assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", types["TYPE_FP32"].number, [10])
    assert logits.label_filename == "labels.txt"
    assert (group.count, group.Kind.Name(group.kind)) == (1, "KIND_GPU")
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    manifest = open_bundle(bundle).manifest
    assert json.loads(config.parameters["preprocessing"].string_value) == manifest.preprocessing
    assert Path("models/model/labels.txt").read_text().splitlines() == list(manifest.labels or ())


@pytest.mark.parametrize(
    ("flags", "device"), [(("--target", "cpu"), "KIND_CPU"), (("--onnx", "--name", "fp32.gpu"), "KIND_GPU")]
)
def test_the_onnx_has_the_tensors_that_the_configuration_names(
    flags: tuple[str, ...],
    device: str,
    bundle: Path,
    ten_frames: npt.NDArray[np.uint8],
    cli_json: CliJson,
    parsed: Callable[[Path], Any],
) -> None:
    file = Path(cli_json("export-triton", bundle, *flags, "-o", "models")["file"])
    config = parsed(file.parents[1] / "config.pbtxt")
    (frames,), (logits,), (group,) = config.input, config.output, config.instance_group
    assert (config.platform, group.Kind.Name(group.kind)) == ("onnxruntime_onnx", device)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == (frames.name, "tensor(uint8)", list(frames.dims))
    assert (given.name, given.type, given.shape[1:]) == (logits.name, "tensor(float)", list(logits.dims))
    answers = session.run([logits.name], {frames.name: ten_frames[: config.max_batch_size]})[0]
    if device == "KIND_CPU":
        with Classifier(bundle, target="cpu") as classify:
            assert np.array_equal(answers, classify.engine.run(ten_frames[: config.max_batch_size]))


def test_a_version_is_never_overwritten_and_shares_its_configuration(bundle: Path, tmp_path: Path) -> None:
    model = triton_model(bundle, "jetson-orin-nano", Batching())
    repository = tmp_path / "models"
    assert write_triton(repository, model) == repository / "model/1"
    with pytest.raises(OutputError, match="models/model/1': it exists already: remove it, or give another name"):
        write_triton(repository, replace(model, data=b"other"))
    assert (repository / "model/1/model.plan").read_bytes() == b"a plan"
    assert write_triton(repository, replace(model, data=b"newer"), 2) == repository / "model/2"
    other = triton_model(bundle, "jetson-orin-nano", Batching(max_batch=2))
    with pytest.raises(OutputError, match="its config.pbtxt is missing or another; give another --name or repository"):
        write_triton(repository, other, 3)
    write_triton(repository, triton_model(bundle, "cpu", Batching(), "on-cpu"))
    assert sorted(path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()) == [
        *("model/1/model.plan", "model/2/model.plan", "model/config.pbtxt", "model/labels.txt"),
        *("on-cpu/1/model.onnx", "on-cpu/config.pbtxt", "on-cpu/labels.txt"),
    ]


def test_what_it_refuses(bundle: Path, refused: Refused) -> None:
    line = refused(2, "export-triton", bundle, "--target", "rtx-40", "-o", "models")
    assert line.startswith("Triton has no back end for tensorrt-rtx, which rtx-40 needs: give --onnx")
    for flags in ((), ("--onnx", "--target", "cpu")):
        assert "give either --target" in refused(2, "export-triton", bundle, *flags, "-o", "models")
    line = refused(4, "export-triton", bundle, "--target", "jetson-thor", "-o", "models")
    assert "has no engine for 'jetson-thor' (it has cpu, jetson-orin-nano): run `edge-resnet comp" in line
    line = refused(2, "export-triton", bundle, "--onnx", "--name", "../up", "-o", "models")
    assert line.startswith("'../up' is no name for a model of Triton: give --name of letters, digits")
    line = refused(2, "export-triton", bundle, "--onnx", "-o", "nowhere/models")
    assert "the folder 'nowhere' does not exist: create it first" in line


@pytest.mark.parametrize("text", ['say "hi" \\ there', "größe\nΩ\t😀", ""])
def test_any_text_comes_back_from_protobuf(text: str, tmp_path: Path, parsed: Callable[[Path], Any]) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(text_format({"name": text, "version_policy": {"specific": {"versions": [1, 2]}}}))
    config = parsed(path)
    assert config.name == text and list(config.version_policy.specific.versions) == [1, 2]


def test_the_text_by_hand() -> None:
    message = {"name": "a", "input": [{"data_type": Enum("TYPE_UINT8"), "dims": [2, 3]}, {"name": 'b"'}]}
    assert text_format(message) == (
        'name: "a"\ninput {\n  data_type: TYPE_UINT8\n  dims: 2\n  dims: 3\n}\ninput {\n  name: "b\\""\n}\n'
    )


def test_features_have_no_labels(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_resnet import triton

    opened = open_bundle(bundle)
    features = replace(opened, manifest=replace(opened.manifest, labels=None))
    monkeypatch.setattr(triton, "open_bundle", lambda path, trust: features)
    model = triton_model(bundle, None, Batching())
    assert model.labels is None and "label_filename" not in model.config
