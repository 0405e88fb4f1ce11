"""Maps of attention: class activation maps against torch's own tensors, occlusion against a network that is one product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge_resnet.attention import BATCH, POSITIONS, activation_map, head_of, occlusion_map, with_features
from edge_resnet.calibration.simulate import exact_session, fast_session
from edge_resnet.demo import FOLDER
from edge_resnet.weights import load_model

ENDS = {
    "Gemm": "mean = GlobalAveragePool(x) flat = Flatten(mean) y = Gemm <transB=1> (flat, wt, b)",
    "MatMul": "mean = GlobalAveragePool(x) flat = Flatten(mean) p = MatMul(flat, w) y = Add(p, b)",
    "bias first": "mean = GlobalAveragePool(x) flat = Flatten(mean) p = MatMul(flat, w) y = Add(b, p)",
    "ReduceMean": "mean = ReduceMean <axes=[-2,-1], keepdims=0> (x) y = Gemm(mean, w, b)",
}
OTHER_ENDS = {
    "softmax": "mean = GlobalAveragePool(x) flat = Flatten(mean) p = Gemm(flat, w, b) y = Softmax(p)",
    "one side": "mean = ReduceMean <axes=[2], keepdims=0> (x) r = ReduceMax <axes=[2], keepdims=0> (mean) y = Gemm(r,w,b)",
    "two layers": "mean = GlobalAveragePool(x) flat = Flatten(mean) p = Relu(flat) y = Gemm(p, w, b)",
    "scaled": "mean = GlobalAveragePool(x) flat = Flatten(mean) y = Gemm <alpha=2.0> (flat, w, b)",
}


def network(end: str) -> onnx.ModelProto:
    """Frames N×6×8×3 → ReLU of centred pixels → one of the ends, with 5 classes."""
    model = onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["": 17]>
    network (uint8[N,6,8,3] frames) => (float[N,5] y) {{
        cast = Cast <to=1> (frames) chw = Transpose <perm=[0,3,1,2]> (cast) centred = Sub(chw, m) x = Relu(centred) {end}
    }}""")
    weights = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    arrays = {"m": np.float32(100), "w": weights, "wt": weights.T.copy(), "b": np.arange(5, dtype=np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in arrays.items())
    return model


def frame(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_logit_is_the_mean_of_its_map_and_the_bias(end: str) -> None:
    model, pixels = network(end), frame(6, 8, 3)
    head = head_of(model)
    assert head is not None and head.features == "x"
    session = exact_session(with_features(model, head))
    for index in range(5):
        logits, found = activation_map(session, head, pixels, index)
        assert found.shape == (6, 8)
        assert found.mean() + index == pytest.approx(logits[index], rel=1e-5)


@pytest.mark.parametrize("end", OTHER_ENDS.values(), ids=OTHER_ENDS)
def test_networks_that_end_otherwise_have_no_such_map(end: str) -> None:
    assert head_of(network(end)) is None


def test_the_map_is_that_of_torch(demo_onnx: Path, ten_frames: np.ndarray) -> None:
    model = onnx.load(demo_onnx)
    head = head_of(model)
    assert head is not None
    session = fast_session(with_features(model, head))
    original = load_model("resnet20", FOLDER / "resnet20-fashion-mnist.safetensors").eval()
    kept: list[torch.Tensor] = []
    original.avgpool.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    for pixels in ten_frames[:3]:
        with torch.no_grad():
            original((torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.2860) / 0.3530)
            wanted = torch.einsum("c,chw->hw", original.fc.weight[7], kept.pop()[0]).numpy()
        assert activation_map(session, head, pixels, 7)[1] == pytest.approx(wanted, abs=1e-3)


def test_occlusion_of_a_network_that_is_one_product() -> None:
    """Covering a square takes from the logit what weights times pixels less the cover are there."""
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17]>
    network (uint8[N,28,28,1] frames) => (float[N,2] y) {
        cast = Cast <to=1> (frames) flat = Flatten(cast) y = MatMul(flat, w)
    }""")
    weights = np.random.default_rng(3).standard_normal((784, 2)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    pixels = frame(28, 28, 1)
    logits, found = occlusion_map(exact_session(model), pixels, 1, np.array([73], np.uint8))
    assert found.shape == (POSITIONS, POSITIONS)
    assert logits == pytest.approx(pixels.ravel().astype(np.float32) @ weights, rel=1e-4)
    share = (weights[:, 1] * (pixels.ravel().astype(np.float32) - 73)).reshape(28, 28)
    # 28 / 14 = 2 pixels a part; squares of 28 / 5 = 5.6: around the middle of the parts, 1, 3, …, from −1.8 to 3.8
    assert found[0, 0] == pytest.approx(share[0:4, 0:4].sum(), abs=0.5)
    assert found[6, 9] == pytest.approx(share[10:16, 16:22].sum(), abs=0.5)
    assert found[13, 13] == pytest.approx(share[24:28, 24:28].sum(), abs=0.5)


@pytest.mark.parametrize("shape", [(3, 5, 1), (224, 224, 3)])
def test_runs_are_bounded(shape: tuple[int, int, int]) -> None:
    class Counting:
        frames = 0

        def get_inputs(self) -> list[onnx.ValueInfoProto]:
            return [onnx.ValueInfoProto(name="frames")]

        def run(self, wanted: None, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
            assert 1 <= len(fed["frames"]) <= BATCH
            self.frames += len(fed["frames"])
            return [fed["frames"].reshape(len(fed["frames"]), -1)[:, :2].astype(np.float32)]

    session = Counting()
    occlusion_map(session, frame(*shape), 0, np.zeros(shape[2], np.uint8))
    assert session.frames == 1 + min(shape[0], POSITIONS) * min(shape[1], POSITIONS)
