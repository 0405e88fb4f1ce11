"""Compiling files: what is refused before any compiler sees it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def test_an_engine_for_a_cameras_frames_says_so_in_its_record(
    demo_bundle: Path, tmp_path: Path, cli_json: Callable[..., Any]
) -> None:
    bundle = Path(shutil.copy(demo_bundle, tmp_path / "model.edge"))
    document = cli_json("compile", bundle, "--target", "rtx-30", "--frames", "120x160:nv12")
    frames = {"height": 120, "width": 160, "color": "nv12"}
    assert document["frames"] == frames
    assert json.loads((tmp_path / "model.rtx-30.json").read_text())["frames"] == frames
    assert document["layers_by_precision"]["int8"] >= 19
    plain = cli_json("compile", bundle, "--target", "rtx-30")
    assert plain["frames"] is None
    assert json.loads((tmp_path / "model.rtx-30.json").read_text())["frames"] is None


def test_a_cameras_frames_need_a_preprocessing_and_a_format(
    demo_bundle: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / "q.onnx"
    path.write_bytes(residual_network("fp32"))
    line = refused(2, "compile", path, "--target", "rtx-30", "--frames", "120x160:nv12")
    assert line.endswith("does not say how frames are prepared: export it with --preprocessing, or use a bundle")
    line = refused(2, "compile", demo_bundle, "--target", "rtx-30", "--frames", "120x160", "-o", "x.engine")
    assert line.startswith("frames are '120x160': give height, width and colour, such as 1080x1920:nv12")
    line = refused(2, "compile", demo_bundle, "--target", "jetson-thor", "--frames", "2x2:rgb", "--explain")
    assert line == "--explain is for networks that take prepared frames: leave --frames out"
