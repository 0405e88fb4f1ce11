"""Where each scheme puts Q/DQ in each architecture, read off the finished ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edge_resnet.calibration import CalibrationTable
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.errors import CalibrationError

Quantized = Callable[..., tuple[Any, CalibrationTable]]
"""``conftest.quantized``: a view of the quantized model, and the table."""


@dataclass(frozen=True)
class Layout:
    """What He et al. say of an architecture."""

    blocks: int
    convolutions_a_block: int
    projections: int
    subsamplings: int

    @property
    def convolutions(self) -> int:
        return 1 + self.blocks * self.convolutions_a_block + self.projections

    @property
    def pairs(self) -> int:
        """The frame, what each convolution of a block reads (a shortcut reads what the block's first one does), what
        each projection gives, and before and behind the channel padding of option A.
        """
        return 1 + self.blocks * self.convolutions_a_block + self.projections + 2 * self.subsamplings


LAYOUTS = {"resnet18": Layout(8, 2, 3, 0), "resnet20": Layout(9, 2, 0, 2), "resnet50": Layout(16, 3, 4, 0)}
every_architecture = pytest.mark.parametrize("arch", LAYOUTS)


def test_unknown_scheme_lists_those_there_are() -> None:
    with pytest.raises(CalibrationError, match="'openvino': choose one of tensorrt, fp8, cpu"):
        scheme_named("openvino")


class TestTensorRt:
    @every_architecture
    def test_as_many_pairs_as_the_architecture_says(self, quantized: Quantized, arch: str) -> None:
        view, _ = quantized(arch, "tensorrt")
        assert len(view.of_type("QuantizeLinear")) == LAYOUTS[arch].pairs
        assert len(view.of_type("DequantizeLinear")) == LAYOUTS[arch].pairs + LAYOUTS[arch].convolutions

    @every_architecture
    def test_every_convolution_reads_int8_and_a_float_bias(self, quantized: Quantized, arch: str) -> None:
        view, _ = quantized(arch, "tensorrt")
        for conv in view.of_type("Conv"):
            assert view.quantizer(conv.input[0]) is not None
            assert view.constant(conv.input[2]).dtype == np.float32

    @every_architecture
    def test_activations_have_the_range_of_their_tensor_in_scales_of_fp16(
        self, quantized: Quantized, arch: str
    ) -> None:
        view, table = quantized(arch, "tensorrt")
        for q in view.of_type("QuantizeLinear"):
            zero_point = view.constant(q.input[2])
            assert (zero_point.dtype, zero_point) == (np.uint8, 0)
            source = q.input[0]
            while view.producer[source].op_type in ("Slice", "Pad"):  # moved values keep the scale they came with
                earlier = view.quantizer(view.producer[source].input[0])
                assert earlier is not None
                source = earlier.input[0]
            wanted = np.float32(np.float16(table.ranges[source].high / 255))
            assert view.constant(q.input[1]) == wanted

    @every_architecture
    def test_a_residual_add_reads_its_shortcut_alone_as_int8(self, quantized: Quantized, arch: str) -> None:
        view, _ = quantized(arch, "tensorrt")
        adds = view.of_type("Add")
        assert len(adds) == LAYOUTS[arch].blocks
        for add in adds:
            (shortcut,) = [name for name in add.input if view.quantizer(name) is not None]
            (residual,) = [name for name in add.input if name != shortcut]
            last = view.producer[residual]
            assert last.name == add.name.replace("add", f"conv{LAYOUTS[arch].convolutions_a_block}")
            assert view.readers[residual] == [add]  # nothing stands between the two, so they can be fused
            q = view.quantizer(shortcut)
            assert q is not None
            source = view.producer[q.input[0]]
            if source.op_type == "Conv":
                assert source.name == add.name.replace("add", "downsample.0")
            else:
                assert source.op_type in ("Relu", "MaxPool", "Pad")

    def test_max_pooling_reads_the_float_relu_and_its_output_is_quantized(self, quantized: Quantized) -> None:
        view, _ = quantized("resnet50", "tensorrt")
        (pool,) = view.of_type("MaxPool")
        assert view.producer[pool.input[0]].op_type == "Relu"
        assert [reader.op_type for reader in view.readers[pool.output[0]]] == ["QuantizeLinear"]

    @pytest.mark.parametrize(("arch", "blocks"), [("resnet50v2", 16), ("resnetv2-34", 16)])
    def test_the_trunk_of_v2_stays_float(self, quantized: Quantized, arch: str, blocks: int) -> None:
        view, _ = quantized(arch, "tensorrt")
        adds = view.of_type("Add")
        assert len(adds) == blocks
        for add in adds:
            assert all(view.quantizer(name) is None for name in add.input)
            assert {reader.op_type for reader in view.readers[add.output[0]]} <= {
                "BatchNormalization",
                "Add",
                "MaxPool",
            }
        convolutions = view.of_type("Conv")
        read = {conv.input[0] for conv in convolutions}
        assert len(view.of_type("QuantizeLinear")) == len(read)  # one for each tensor that convolutions read, no more
        for conv in convolutions[1:]:
            q = view.quantizer(conv.input[0])
            assert q is not None and view.producer[q.input[0]].op_type == "Relu"

    def test_the_average_pooling_of_d_reads_what_the_convolution_beside_it_reads(self, quantized: Quantized) -> None:
        view, _ = quantized("resnet18d", "tensorrt")
        pools = view.of_type("AveragePool")
        assert [pool.name for pool in pools] == [f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)]
        for pool in pools:
            beside = view.named(pool.name.replace("downsample.0", "conv1"))
            assert pool.input[0] == beside.input[0]
            assert view.quantizer(pool.input[0]) is not None
            (q,) = view.readers[pool.output[0]]
            assert q.op_type == "QuantizeLinear"

    def test_option_a_moves_int8(self, quantized: Quantized) -> None:
        view, _ = quantized("resnet20", "tensorrt")
        moves = view.of_type("Slice", "Pad")
        assert len(moves) == 2 * LAYOUTS["resnet20"].subsamplings
        for node in moves:
            before = view.quantizer(node.input[0])
            assert before is not None
            (after,) = view.readers[node.output[0]]
            assert after.op_type == "QuantizeLinear"
            assert view.constant(after.input[1]) == view.constant(before.input[1])


class TestCpu:
    @every_architecture
    def test_every_convolution_is_integer_on_all_sides(self, quantized: Quantized, arch: str) -> None:
        view, _ = quantized(arch, "cpu")
        for conv in view.of_type("Conv"):
            q = view.quantizer(conv.input[0])
            weight, bias = view.integers(conv.input[1]), view.integers(conv.input[2])
            assert q is not None
            assert weight is not None
            assert bias is not None
            assert view.constant(bias.input[0]).dtype == np.int32
            assert not view.constant(bias.input[2]).any()
            np.testing.assert_array_equal(
                view.constant(bias.input[1]), view.constant(q.input[1]) * view.constant(weight.input[1])
            )
            (after,) = view.readers[conv.output[0]]
            if after.op_type == "Relu":
                (after,) = view.readers[after.output[0]]
            assert after.op_type == "QuantizeLinear"

    @every_architecture
    def test_both_sides_of_a_residual_add_and_its_sum_are_quantized(self, quantized: Quantized, arch: str) -> None:
        view, _ = quantized(arch, "cpu")
        adds = view.of_type("Add")
        assert len(adds) == LAYOUTS[arch].blocks
        for add in adds:
            assert all(view.quantizer(name) is not None for name in add.input)
            (relu,) = view.readers[add.output[0]]
            assert [reader.op_type for reader in view.readers[relu.output[0]]] == ["QuantizeLinear"]

    @every_architecture
    def test_activations_are_uint8_over_the_range_of_their_tensor(self, quantized: Quantized, arch: str) -> None:
        view, table = quantized(arch, "cpu")
        for q in view.of_type("QuantizeLinear"):
            assert view.constant(q.input[2]).dtype == np.uint8
            source = q.input[0]
            while view.producer[source].op_type in ("Slice", "Pad"):
                earlier = view.quantizer(view.producer[source].input[0])
                assert earlier is not None
                source = earlier.input[0]
            if any(v.op_type == "MaxPool" for v in view.readers[view.dequantized(q)]):
                source = "maxpool"  # pooling on integers has one scale on both sides
            found = table.ranges[source]
            assert view.constant(q.input[1]) == np.float32(np.float16((found.high - found.low) / 255))

    @pytest.mark.parametrize(("arch", "kind"), [("resnet50", "MaxPool"), ("resnet20", "Slice"), ("resnet20", "Pad")])
    def test_what_moves_or_pools_integers_has_one_scale_on_both_sides(
        self, quantized: Quantized, arch: str, kind: str
    ) -> None:
        view, _ = quantized(arch, "cpu")
        nodes = view.of_type(kind)
        assert nodes
        for node in nodes:
            before = view.quantizer(node.input[0])
            (after,) = view.readers[node.output[0]]
            assert before is not None
            assert after.op_type == "QuantizeLinear"
            for index in (1, 2):
                assert view.constant(before.input[index]) == view.constant(after.input[index])
