"""The classifier with an engine on a GPU, on doubles of CUDA and TensorRT: what reaches the engine, and in which form."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from cuda_double import CudaDouble
from PIL import Image
from trt_double import installed

from edge_resnet import Classifier
from edge_resnet.bundle import FP32_MEMBER, open_bundle
from edge_resnet.camera_graph import with_camera
from edge_resnet.companion import companion_path, write_companion
from edge_resnet.demo import TEST
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.errors import EngineError, ImageError
from edge_resnet.frames import FrameColor, FrameFormat
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.preprocessing import NAMED

CAMERA = FrameFormat(120, 160, FrameColor.BGR)
TARGET = "jetson-orin-nano"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return installed(CudaDouble(sm=87, integrated=True), monkeypatch)


def with_engine(demo_bundle: Path, folder: Path, frames: FrameFormat | None) -> Path:
    """The demo's bundle with an engine for a Jetson beside it; to the double of TensorRT an ONNX file is one."""
    bundle = Path(shutil.copy(demo_bundle, folder / "model.edge"))
    opened = open_bundle(bundle)
    model = parse_onnx(opened.read(FP32_MEMBER), FP32_MEMBER)
    if frames is not None:
        model = with_camera(model, NAMED["fashion-mnist"], frames)
    compiled = CompiledEngine("tensorrt", model.SerializeToString(), (), {})
    write_companion(companion_path(bundle, TARGET), TARGET, opened.digest, compiled, frames)
    return bundle


@pytest.fixture
def frame() -> np.ndarray:
    """A photo of the demo as a camera would give it, in the middle of 120×160 BGR."""
    photo = Image.open(TEST / "sneaker" / "00009.png").convert("RGB").resize((160, 120))
    return np.asarray(photo)[:, :, ::-1].copy()


def test_the_engine_on_the_gpu_is_chosen_and_answers_as_the_one_on_the_cpu(
    demo_bundle: Path, tmp_path: Path, cuda: CudaDouble, frame: np.ndarray
) -> None:
    bundle = with_engine(demo_bundle, tmp_path, None)
    with Classifier(bundle) as on_gpu, Classifier(bundle, target="cpu") as on_cpu:
        assert on_gpu.target == TARGET
        for given in (frame, [frame, frame[:60]], [frame] * 11):
            found, wanted = on_gpu(given), on_cpu(given)
            pairs = zip(found, wanted, strict=True) if isinstance(found, list) else [(found, wanted)]
            for one, other in pairs:
                assert one.label == other.label
                assert one.probability == pytest.approx(other.probability, abs=0.02)
    assert cuda.held() == {}


def test_an_engine_that_prepares_frames_takes_the_cameras_buffer(
    demo_bundle: Path, tmp_path: Path, cuda: CudaDouble, frame: np.ndarray
) -> None:
    with (
        Classifier(with_engine(demo_bundle, tmp_path, CAMERA), color="bgr") as on_gpu,
        Classifier(demo_bundle, target="cpu") as on_cpu,
    ):
        assert on_gpu.frames == CAMERA
        with Classifier(tmp_path / "model.edge") as undeclared, pytest.raises(ImageError, match="give color='bgr'"):
            undeclared(frame)
        found, wanted = on_gpu(frame), on_cpu(np.ascontiguousarray(frame[:, :, ::-1]))
        assert found.label == wanted.label
        np.testing.assert_allclose(found.logits, wanted.logits, atol=0.6)
        for other, said in (
            (frame[:60], "frame 0 is uint8 (60, 160, 3)"),
            (frame.astype(np.float32), "frame 0 is float32 (120, 160, 3)"),
            (TEST / "sneaker" / "00009.png", "frame 0 is of type PosixPath"),
        ):
            with pytest.raises(ImageError) as caught:
                on_gpu(other)
            assert str(caught.value).startswith(said)
            assert "this engine was compiled for frames of 120×160 bgr, uint8 (120, 160, 3)" in str(caught.value)


class OnGpu:
    def __init__(self, cuda: CudaDouble, frame: np.ndarray) -> None:
        with cuda.current():
            address = cuda.allocate(frame.nbytes)
        cuda.device_memory[address][:] = frame.reshape(-1)
        self.__cuda_array_interface__ = {
            "shape": frame.shape,
            "typestr": "|u1",
            "data": (address, False),
            "strides": None,
            "version": 3,
        }


def test_a_frame_on_the_gpu_never_passes_through_the_host(
    demo_bundle: Path, tmp_path: Path, cuda: CudaDouble, frame: np.ndarray
) -> None:
    with Classifier(with_engine(demo_bundle, tmp_path, CAMERA), color="bgr") as classify:
        wanted = classify(frame)
        cuda.log.clear()
        found = classify(OnGpu(cuda, frame))
        assert cuda.log == ["execute", "synchronize"]
        np.testing.assert_array_equal(found.logits, wanted.logits)
        assert [p.label for p in classify([OnGpu(cuda, frame), OnGpu(cuda, frame)])] == [wanted.label] * 2


def test_a_frame_on_the_gpu_is_not_for_an_engine_on_the_cpu(
    demo_bundle: Path, cuda: CudaDouble, frame: np.ndarray
) -> None:
    with Classifier(demo_bundle, target="cpu") as classify:
        with pytest.raises(EngineError, match="this engine runs on the CPU and the frames, OnGpu, are not"):
            classify(OnGpu(cuda, frame))
        with pytest.raises(ImageError, match="some frames are on the GPU and some are not"):
            classify([frame, OnGpu(cuda, frame)])
    with pytest.raises(EngineError, match="it has no use for the CUDA binding 'pycuda'"):
        Classifier(demo_bundle, target="cpu", cuda="pycuda")
