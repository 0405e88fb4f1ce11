"""Golden samples: what the demo's engines answer, and that another engine's answers are told apart."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edge_resnet import demo
from edge_resnet.bundle import FP32_MEMBER, Bundle, open_bundle, write_bundle
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.errors import BundleError
from edge_resnet.golden import SAMPLES, TOLERANCE_DB, golden_members, judge, read_golden, replay
from edge_resnet.images import open_images
from edge_resnet.inspection import verify_bundle
from edge_resnet.preprocessing import NAMED

CPU = "engines/cpu.onnx"


def with_members(bundle: Bundle, path: Path, **changed: bytes | None) -> Path:
    """Writes the bundle again with some members replaced (by the keys ``cpu``, ``golden``)."""
    names = {"cpu": CPU, "golden": "golden/cpu.npy"}
    members = {name: bundle.read(name) for name in bundle.names}
    members |= {names[key]: data for key, data in changed.items() if data is not None}
    write_bundle(path, bundle.manifest, members)
    return path


def with_weight(data: bytes, change: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]) -> bytes:
    """The engine with the INT8 weights of one convolution in the middle changed."""
    model = onnx.load_from_string(data)
    weight = next(
        w
        for w in model.graph.initializer
        if w.name.startswith("layer2.1.conv1.weight") and w.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    )
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(weight))), weight.name))
    return model.SerializeToString()


def test_the_samples_are_test_images_and_what_fp32_makes_of_them(demo_bundle: Path) -> None:
    bundle = open_bundle(demo_bundle)
    frames, fp32 = read_golden(bundle, "frames"), read_golden(bundle, "fp32")
    assert (frames.shape, frames.dtype, fp32.shape, fp32.dtype) == ((SAMPLES, 28, 28, 1), np.uint8, (SAMPLES, 10), "f4")
    every = open_images(demo.TEST).pixels(NAMED["fashion-mnist"])
    known = {frame.tobytes() for frame in every}
    assert len({frame.tobytes() for frame in frames} & known) == SAMPLES
    session = onnxruntime.InferenceSession(bundle.read(FP32_MEMBER))
    np.testing.assert_allclose(fp32, session.run(None, {"frames": frames})[0], rtol=0, atol=1e-4)


def test_the_engine_of_the_demo_answers_as_it_did(demo_bundle: Path) -> None:
    bundle = open_bundle(demo_bundle)
    with OrtEngine(bundle.read(CPU)) as engine:
        result = replay(bundle, "cpu", engine)
    assert result.passed and result.target == "cpu"
    assert verify_bundle(demo_bundle)[0]["passed"] is True


@pytest.mark.parametrize(
    "change",
    [lambda w: np.roll(w, 1, axis=0), lambda w: w // 2, lambda w: w[:, ::-1], lambda w: np.where(w < 0, 0, w)],
    ids=["channels turned", "halved", "inputs mirrored", "negative lost"],
)
def test_an_engine_with_other_weights_is_noticed(
    change: Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]], demo_bundle: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(demo_bundle)
    other = with_members(bundle, tmp_path / "other.edge", cpu=with_weight(bundle.read(CPU), change))
    verified = {each["target"]: each for each in verify_bundle(other)}
    assert verified["cpu"]["passed"] is False
    assert verified["cpu"]["sqnr_db"] < TOLERANCE_DB
    assert verified["rtx"]["passed"] is not False


def npy(array: npt.NDArray[np.generic], *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


class Trap:
    """Unpickling one would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self.path,)


def damaged(whole: bytes, tmp_path: Path) -> dict[str, bytes]:
    zipped = io.BytesIO()
    np.savez(zipped, a=np.zeros(3))
    return {
        "empty": b"",
        "text": b"no array",
        "cut": whole[:-1],
        "cut in the header": whole[:40],
        "an unclosed header": whole.replace(b"}", b"("),
        "a zip of arrays": zipped.getvalue(),
        "a pickle": npy(np.array([Trap(tmp_path / "trapped")], object), allow_pickle=True),
    }


@pytest.mark.parametrize("kind", damaged(npy(np.zeros((8, 10))), Path()))
def test_damaged_samples_are_refused(kind: str, demo_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(demo_bundle)
    data = damaged(bundle.read("golden/cpu.npy"), tmp_path)[kind]
    other = open_bundle(with_members(bundle, tmp_path / "other.edge", golden=data))
    with pytest.raises(BundleError, match="the golden samples 'cpu' cannot be read .*: build the bundle again"):
        read_golden(other, "cpu")
    assert not (tmp_path / "trapped").exists()


def test_samples_of_a_target_that_has_none(demo_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no member 'golden/rtx-20.npy'"):
        read_golden(open_bundle(demo_bundle), "rtx-20")


def test_members_go_into_a_bundle_and_come_back(demo_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(demo_bundle)
    frames, logits = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3), np.float32([[1, 2]])
    members = golden_members(frames, logits, {"cpu": logits + 1})
    write_bundle(tmp_path / "x.edge", bundle.manifest, {name: bundle.read(name) for name in bundle.names} | members)
    again = open_bundle(tmp_path / "x.edge")
    for name, array in (("frames", frames), ("fp32", logits), ("cpu", logits + 1)):
        np.testing.assert_array_equal(read_golden(again, name), array)


def test_the_judge_measures_decibels() -> None:
    expected = np.float32([[3, 4]])
    assert judge("x", expected, expected).sqnr_db is None and judge("x", expected, expected).passed
    for noise, decibels in ((0.05, 40.0), (2.0, 7.96)):
        found = judge("x", expected, expected + np.float32([[noise, 0]]))
        assert found.sqnr_db == pytest.approx(decibels, abs=0.01)
        assert found.passed is (decibels > TOLERANCE_DB)
    for wrong in (np.nan, np.inf):
        assert not judge("x", expected, np.float32([[3, wrong]])).passed
    assert not judge("x", np.zeros((1, 2), np.float32), expected).passed
