"""The arithmetic, against ONNX's own reference implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edge_resnet.calibration.affine import (
    SMALLEST_SCALE,
    QuantParams,
    asymmetric,
    dequantize,
    half_scale,
    quantize,
    symmetric,
)

DTYPES = [np.int8, np.uint8]
Values = npt.NDArray[np.float32]

finite = st.floats(-1e4, 1e4, width=32)
scales = st.floats(2.0**-15, 1e3, width=32)  # the reference rounds to int32, which must not overflow
tensors = hnp.arrays(np.float32, (3, 4), elements=finite)


def reference(operator: str, x: npt.NDArray[Any], params: QuantParams) -> npt.NDArray[Any]:
    """What ONNX's reference evaluator answers to one QuantizeLinear or DequantizeLinear."""
    constants = {"scale": params.scale, "zero_point": np.full(params.scale.shape, params.zero_point, params.dtype)}
    feeds = {"x": x, **constants}
    attributes: dict[str, Any] = {} if params.axis is None else {"axis": params.axis}
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    result = helper.np_dtype_to_tensor_dtype(np.dtype(params.dtype if operator == "QuantizeLinear" else np.float32))
    graph = helper.make_graph(
        [helper.make_node(operator, list(feeds), ["y"], **attributes)],
        operator,
        [helper.make_tensor_value_info(name, kind, feeds[name].shape) for name, kind in types.items()],
        [helper.make_tensor_value_info("y", result, x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    onnx.checker.check_model(model, full_check=True)
    return np.asarray(next(iter(ReferenceEvaluator(model).run(None, feeds))))


@st.composite
def params_of(draw: st.DrawFn) -> QuantParams:
    dtype = draw(st.sampled_from(DTYPES))
    axis = draw(st.sampled_from([None, 0, 1]))
    shape = () if axis is None else ((3, 4)[axis],)
    scale = draw(hnp.arrays(np.float32, shape, elements=scales))
    info = np.iinfo(dtype)
    return QuantParams(scale, draw(st.integers(int(info.min), int(info.max))), dtype, axis)


class TestOnnxDefinition:
    @given(tensors, params_of())
    def test_quantize(self, x: Values, params: QuantParams) -> None:
        np.testing.assert_array_equal(quantize(x, params), reference("QuantizeLinear", x, params), strict=True)

    @given(st.data(), params_of())
    def test_dequantize(self, data: st.DataObject, params: QuantParams) -> None:
        q = data.draw(hnp.arrays(params.dtype, (3, 4)))
        np.testing.assert_array_equal(dequantize(q, params), reference("DequantizeLinear", q, params), strict=True)

    def test_halves_go_to_the_even_neighbour(self) -> None:
        params = QuantParams(np.asarray(1, np.float32), 0, np.int8)
        x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
        assert quantize(x, params).tolist() == [-2, -2, 0, 0, 2, 2]

    @pytest.mark.parametrize(("dtype", "ends"), [(np.int8, [-128, 127]), (np.uint8, [0, 255])])
    def test_saturates(self, dtype: npt.DTypeLike, ends: list[int]) -> None:
        params = QuantParams(np.asarray(1, np.float32), 0, dtype)
        assert quantize(np.array([-1e30, 1e30], np.float32), params).tolist() == ends


class TestSymmetric:
    @given(st.floats(2.0**-6, 1e4, width=32), st.data())
    def test_error_is_half_a_step_within_the_range(self, amax: float, data: st.DataObject) -> None:
        params = symmetric(amax)
        x = data.draw(hnp.arrays(np.float32, 8, elements=st.floats(-amax, amax, width=32)))
        error = np.abs(dequantize(quantize(x, params), params).astype(np.float64) - x)
        # FP16 may round the scale down by 2⁻¹¹, and the end of the range with it: 127 · 2⁻¹¹ of a step.
        assert error.max() <= params.scale * (0.5 + 127 * 2**-11)

    @given(hnp.arrays(np.float32, 5, elements=st.floats(0, 1e4, width=32)))
    def test_zero_is_exact_in_every_channel(self, amax: Values) -> None:
        params = symmetric(amax, axis=0)
        zero = np.zeros((5, 2), np.float32)
        assert not quantize(zero, params).any()
        assert not dequantize(quantize(zero, params), params).any()

    def test_per_channel_scales_are_those_of_each_channel(self) -> None:
        amax = np.array([0.25, 1, 127], np.float32)
        each = [symmetric(value).scale for value in amax]
        np.testing.assert_array_equal(symmetric(amax, axis=0).scale, each)
        assert each[2] == 1


class TestHalfScale:
    @given(hnp.arrays(np.float32, 6, elements=st.floats(0, 6e4, width=32)))
    def test_survives_float16(self, scale: Values) -> None:
        rounded = half_scale(scale)
        np.testing.assert_array_equal(rounded.astype(np.float16).astype(np.float32), rounded, strict=True)

    @given(st.floats(2.0**-14, 6e4, width=32))
    def test_changes_a_normal_number_by_a_2048th(self, scale: float) -> None:
        assert abs(float(half_scale(np.asarray(scale, np.float32))) - scale) <= scale * 2**-11

    @given(st.floats(0, 2.0**-14, width=32, exclude_max=True))
    def test_a_subnormal_number_grows_so_that_nothing_is_clipped(self, scale: float) -> None:
        rounded = float(half_scale(np.asarray(scale, np.float32)))
        assert rounded > 0
        assert scale <= rounded <= scale + float(SMALLEST_SCALE)


class TestAsymmetric:
    @given(st.floats(-1e3, 1e3, width=32), st.floats(0, 1e3, width=32))
    def test_holds_zero_exactly(self, low: float, span: float) -> None:
        params = asymmetric(low, low + span)
        zero = np.zeros(1, np.float32)
        assert quantize(zero, params) == params.zero_point
        assert dequantize(quantize(zero, params), params) == 0

    @given(st.floats(-1e3, 1e3, width=32), st.floats(2.0**-7, 1e3, width=32), st.data())
    def test_error_is_half_a_step_within_the_range(self, low: float, span: float, data: st.DataObject) -> None:
        params = asymmetric(low, low + span)
        inside = st.floats(low, float(np.float32(low + span)), width=32)
        x = data.draw(hnp.arrays(np.float32, 8, elements=inside))
        error = np.abs(dequantize(quantize(x, params), params).astype(np.float64) - x)
        # The zero point is rounded, which may move one end of the range by half a step.
        within = (x / params.scale > 0.5 - params.zero_point) & (x / params.scale < 254.5 - params.zero_point)
        assert error[within].max(initial=0) <= params.scale * 0.5001
        assert error.max() <= params.scale * 1.0001

    def test_one_sided_range_starts_at_zero(self) -> None:
        params = asymmetric(1.0, 255.0)
        assert (params.zero_point, float(params.scale)) == (0, 1.0)
        assert asymmetric(-255.0, -1.0).zero_point == 255
