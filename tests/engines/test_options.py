"""What can be asked of a compiler, and what is refused before it is asked."""

from __future__ import annotations

from dataclasses import fields

import pytest

from edge_resnet.engines.options import DEFAULTS, BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.errors import EngineError


@pytest.mark.parametrize("sizes", [(0, 1, 8), (2, 1, 8), (1, 9, 8), (-1, -1, -1)])
def test_batches_rise_from_one(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(
        EngineError, match=f"^batches are {','.join(map(str, sizes))}: give smallest, typical and largest"
    ):
        BatchRange(*sizes)


WRONG = {
    "workspace_mb is 0: give MiB, 1 or more": {"workspace_mb": 0},
    "optimization_level is 6: give a whole number from 0 to 5": {"optimization_level": 6},
    "optimization_level is -1": {"optimization_level": -1},
    "dla_core is -1: give 0 for the first": {"dla_core": -1, "batches": BatchRange(1, 1, 1)},
    "dla_core is 0 and batches are 1,1,8: a DLA takes one size of batch": {"dla_core": 0},
}


@pytest.mark.parametrize("message", WRONG)
def test_values_out_of_range_are_refused(message: str) -> None:
    with pytest.raises(EngineError, match=f"^{message}"):
        BuildOptions(**WRONG[message])


def test_chosen_are_those_that_are_not_at_their_defaults() -> None:
    assert DEFAULTS.chosen == {}
    chosen = BuildOptions(
        batches=BatchRange(1, 4, 16),
        workspace_mb=512,
        optimization_level=0,
        tf32=True,
        version_compatible=True,
        hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY,
        refit=True,
        strip_weights=True,
        sparse_weights=True,
        timing_cache=b"12345",
    ).chosen
    assert chosen == {
        "batches": "1,4,16",
        "workspace_mb": "512",
        "optimization_level": "0",
        "tf32": "true",
        "version_compatible": "true",
        "hardware_compatibility": "same-compute-capability",
        "refit": "true",
        "strip_weights": "true",
        "sparse_weights": "true",
        "timing_cache": "5 bytes",
    }
    assert chosen.keys() | {"dla_core"} == {field.name for field in fields(BuildOptions)}


def test_an_engine_kind_without_options_refuses_each() -> None:
    with pytest.raises(
        EngineError, match="^ONNX Runtime [0-9.]+ has no option workspace_mb, and it is 64: leave it out"
    ):
        OrtEngine.compile(b"", target_named("cpu"), BuildOptions(workspace_mb=64))


def test_where_no_library_is_installed_the_newest_version_decides() -> None:
    assert TensorRtEngine.quantized_form().stored_weights
    assert "strip_weights" in TensorRtEngine.available_options()
