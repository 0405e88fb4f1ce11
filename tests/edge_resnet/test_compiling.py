"""Compiling files: what is refused before any compiler sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from residual_network import residual_network

from edge_resnet.compiling import compile_source
from edge_resnet.errors import EdgeResnetError, ModelError

ZERO_POINT = "^TensorRT cannot be given this model: QuantizeLinear 'centred_q' has the zero point 3: it must be 0 "


@pytest.mark.parametrize("target", ["rtx-30", "jetson-orin-nano"])
def test_what_tensorrt_would_misread_is_refused_wherever_it_is_compiled(tmp_path: Path, target: str) -> None:
    path = tmp_path / "q.onnx"
    path.write_bytes(residual_network("fp32", zero_point=3))
    with pytest.raises(ModelError, match=ZERO_POINT):
        compile_source(path, target)


def test_onnx_runtime_may_have_zero_points(tmp_path: Path) -> None:
    path = tmp_path / "q.onnx"
    path.write_bytes(residual_network("fp32", zero_point=3))
    try:
        compile_source(path, "cpu")
    except EdgeResnetError as error:
        assert "TensorRT" not in str(error)


def test_what_tensorrt_takes_compiles_with_its_note(tmp_path: Path) -> None:
    path = tmp_path / "q.onnx"
    path.write_bytes(residual_network("fp32"))
    made = compile_source(path, "rtx-30")
    assert [note.split(" to a")[0] for note in made.notes] == ["TensorRT-RTX leaves part of each INT8 layer"]
    assert made.compiled.layers_by_precision["int8"] >= 3
