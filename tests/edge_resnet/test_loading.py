"""Which engine is loaded, which is refused before its library sees it, and what the golden samples decide."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trt_double
from cuda_double import CudaDouble
from onnx import numpy_helper
from trt_double import installed

from edge_resnet import Classifier
from edge_resnet.bundle import FP32_MEMBER, MEASURED_ON, open_bundle
from edge_resnet.camera_graph import with_camera
from edge_resnet.companion import companion_path, write_companion
from edge_resnet.engines.engine import COMPILED_ON, CompiledEngine
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.errors import BundleError, EngineError, GateError
from edge_resnet.frames import FrameColor, FrameFormat
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.preprocessing import NAMED

TARGET = "jetson-orin-nano"
HERE = {"tensorrt": "10.3.0", "sms": "87", COMPILED_ON: "NVIDIA Double (SM 87)"}
"""What the doubles would write down."""


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return installed(CudaDouble(sm=87, integrated=True), monkeypatch)


def with_engine(
    bundle: Path, folder: Path, versions: dict[str, str], frames: FrameFormat | None = None, *, broken: bool = False
) -> Path:
    """A bundle with an engine for a Jetson beside it, which the doubles run; a broken one has a layer turned round."""
    path = Path(shutil.copy(bundle, folder / "model.edge"))
    opened = open_bundle(path)
    model = parse_onnx(opened.read(FP32_MEMBER), FP32_MEMBER)
    if broken:
        weight = next(each for each in model.graph.initializer if each.name == "layer2.1.conv1.weight")
        turned = np.roll(numpy_helper.to_array(weight), 5, axis=0)
        weight.CopyFrom(numpy_helper.from_array(turned, weight.name))
    if frames is not None:
        model = with_camera(model, NAMED["fashion-mnist"], frames)
    compiled = CompiledEngine("tensorrt", model.SerializeToString(), (), versions)
    write_companion(companion_path(path, TARGET), TARGET, opened.digest, compiled, frames)
    return path


MISMATCHES = {
    "another version": ({**HERE, "tensorrt": "10.7.0"}, "it was compiled by TensorRT 10.7.0, and here is 10.3.0"),
    "another SM": ({**HERE, "sms": "86"}, "it was compiled for SM 86, and this GPU has SM 87"),
}


@pytest.mark.parametrize(("versions", "reason"), MISMATCHES.values(), ids=MISMATCHES)
def test_another_versions_engine_is_refused_before_the_library_sees_it(
    versions: dict[str, str],
    reason: str,
    quick_bundle: Path,
    tmp_path: Path,
    cuda: CudaDouble,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(trt_double.Runtime, "deserialize_cuda_engine", lambda *_: pytest.fail("it was deserialized"))
    bundle = with_engine(quick_bundle, tmp_path, versions)
    command = f"run `edge-resnet compile {bundle} --target {TARGET}` here"
    said = f"{bundle}: the engine for {TARGET} is not for this host: {reason}: {command}"
    for asked in ({}, {"target": TARGET}, {"target": TARGET, "fallback": "next"}):
        with pytest.raises(EngineError) as caught:
            Classifier(bundle, **asked)
        assert str(caught.value) == said
    with caplog.at_level(logging.WARNING), Classifier(bundle, fallback="next") as classify:
        assert classify.target == "cpu"
        assert classify.why == f"cpu: others do not run here ({TARGET}: {said})"
    assert caplog.messages == [f"the engine for {TARGET} is passed over: {said}"]
    assert cuda.held() == {}


def test_the_command_makes_the_same_engine(quick_bundle: Path, tmp_path: Path, cuda: CudaDouble) -> None:
    """With the camera's frames and the options that it was compiled with."""
    frames = FrameFormat(1080, 1920, FrameColor.NV12)
    options = "batches=1,1,4 tf32=true version_compatible=true timing_cache=12 bytes"
    bundle = with_engine(quick_bundle, tmp_path, {**HERE, "tensorrt": "10.7.0", "options": options}, frames)
    flags = "--frames 1080x1920:nv12 --batch 1,1,4 --tf32 --version-compatible"
    with pytest.raises(EngineError) as caught:
        Classifier(bundle)
    assert str(caught.value).endswith(f"run `edge-resnet compile {bundle} --target {TARGET} {flags}` here")
    assert FrameFormat.parse(frames.flag) == frames


def test_an_engine_that_was_measured_here_is_loaded_without_more(
    quick_bundle: Path, tmp_path: Path, cuda: CudaDouble
) -> None:
    broken = with_engine(quick_bundle, tmp_path, {**HERE, MEASURED_ON: "NVIDIA Double (SM 87)"}, broken=True)
    Classifier(broken).close()
    with pytest.raises(GateError, match=r"jetson-orin-nano answers the golden samples -?\d+\.\d dB off"):
        Classifier(broken, verify="golden")
    assert cuda.held() == {}


@pytest.mark.parametrize("frames", [None, FrameFormat(120, 160, FrameColor.BGR), FrameFormat(56, 56, FrameColor.NV12)])
def test_an_engine_that_was_measured_nowhere_is_measured_by_the_golden_samples(
    frames: FrameFormat | None, quick_bundle: Path, tmp_path: Path, cuda: CudaDouble
) -> None:
    elsewhere = {**HERE, COMPILED_ON: "NVIDIA Orin NX (SM 87)"}
    with Classifier(with_engine(quick_bundle, tmp_path, elsewhere, frames)) as classify:
        assert classify.target == TARGET
    broken = with_engine(quick_bundle, tmp_path, elsewhere, frames, broken=True)
    with pytest.raises(GateError) as caught:
        Classifier(broken)
    assert "(NVIDIA Double (SM 87); it was measured nowhere, and compiled on NVIDIA Orin NX (SM 87))" in str(
        caught.value
    )
    camera = "" if frames is None else f" --frames {frames.flag}"
    assert str(caught.value).endswith(f"run `edge-resnet compile {broken} --target {TARGET}{camera}` here")
    assert caught.value.exit_code == 3
    with Classifier(broken, fallback="next") as classify:
        assert classify.target == "cpu"
    assert cuda.held() == {}


def test_another_version_of_onnx_runtime_is_a_reason_to_ask_the_samples(
    quick_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = OrtEngine._run

    def saturated(self: OrtEngine, frames: npt.NDArray[np.uint8], *rest: Any) -> npt.NDArray[np.float32]:
        return np.minimum(answer(self, frames, *rest), 1)

    monkeypatch.setattr(OrtEngine, "library", classmethod(lambda cls: ("onnxruntime", "99.1")))
    Classifier(quick_bundle, target="cpu").close()
    monkeypatch.setattr(OrtEngine, "_run", saturated)
    with pytest.raises(
        GateError, match=r"it was made with onnxruntime [\d.]+, and here is 99.1\): build the bundle here"
    ):
        Classifier(quick_bundle, target="cpu")
    monkeypatch.undo()
    monkeypatch.setattr(OrtEngine, "_run", saturated)
    with pytest.raises(GateError, match="dB off on this device"):
        Classifier(quick_bundle, target="cpu", verify="golden")


def test_memory_that_runs_out_at_load_leaves_nothing_behind(
    quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = installed(CudaDouble(sm=87, integrated=False, memory=1000), monkeypatch)
    bundle = with_engine(quick_bundle, tmp_path, HERE)
    with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY") as caught:
        Classifier(bundle)
    assert (full.held(), caught.value.exit_code) == ({}, 2)
    with Classifier(bundle, fallback="next") as classify:
        assert classify.target == "cpu" and "CUDA_ERROR_OUT_OF_MEMORY" in classify.why


def test_an_engine_that_gives_no_numbers_is_refused_at_load(
    quick_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtEngine, "_run", lambda self, frames, out: np.full((len(frames), 10), np.nan, np.float32))
    with pytest.raises(EngineError, match="the engine gives NaN or infinity for a black frame"):
        Classifier(quick_bundle, target="cpu")


def test_words_that_are_no_choice(quick_bundle: Path) -> None:
    with pytest.raises(EngineError, match="verify is 'always': choose one of unmeasured, golden"):
        Classifier(quick_bundle, verify="always")
    with pytest.raises(EngineError, match="fallback is 'cpu': choose one of refuse, next"):
        Classifier(quick_bundle, fallback="cpu")


def test_a_record_that_does_not_say_what_compiled_the_engine(
    quick_bundle: Path, tmp_path: Path, cuda: CudaDouble
) -> None:
    bundle = with_engine(quick_bundle, tmp_path, HERE)
    record = companion_path(bundle, TARGET).with_suffix(".json")
    record.write_text(record.read_text().replace('"versions": {', '"versions": 3, "was": {'))
    with pytest.raises(
        BundleError, match="has a record that does not say what compiled it: remove it, or make it again"
    ):
        Classifier(bundle)
