"""TensorRT's calibration cache: against values of known scales, numpy's big-endian floats, and a network's own table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.calibration import SCHEMES, CalibrationTable, TensorRange, insert_qdq
from edge_resnet.calibration.schemes import INT8_SCHEMES
from edge_resnet.calibration.trt_cache import CalibrationCache, read_cache, table_from_cache, write_cache
from edge_resnet.errors import CalibrationError

Network = Callable[..., onnx.ModelProto]
HEADER = "TRT-8502-EntropyCalibration2\n"
amax = st.floats(127 * 2.0**-24, 1e38)
names = st.text(st.characters(exclude_characters="\r\n"), min_size=1)


def table_of(**amax: float) -> CalibrationTable:
    ranges = {name: TensorRange(-value, value, value, -value, value) for name, value in amax.items()}
    return CalibrationTable("by hand", "0" * 64, {}, {}, ranges)


@pytest.mark.parametrize(("scale", "amax"), [("3c010a14", 1.0002), ("4000890a", 255.06)])
def test_scales_of_images_from_0_to_1_and_from_0_to_255(scale: str, amax: float) -> None:
    found = read_cache(f"{HEADER}images: {scale}\n", "c")
    assert found == CalibrationCache("8502", "EntropyCalibration2", {"images": pytest.approx(amax, rel=1e-4)})
    assert write_cache(table_of(images=found.amax["images"]), "8502") == f"{HEADER}images: {scale}\n"


@given(st.dictionaries(names, amax))
@settings(deadline=None)
def test_there_and_back_within_float32(values: dict[str, float]) -> None:
    text = write_cache(table_of(**values), "100300")
    first, *lines, last = text.split("\n")
    assert (first, last) == ("TRT-100300-EntropyCalibration2", "")
    assert [line[-8:] for line in lines] == [np.array(v / 127, ">f4").tobytes().hex() for v in values.values()]
    assert read_cache(text, "c").amax == pytest.approx(values, rel=2.0**-23)


@pytest.mark.parametrize("amax", [0.0, 1e-30, 1e-6])
def test_no_scale_is_one_that_fp16_rounds_to_0(amax: float) -> None:
    (scale,) = read_cache(write_cache(table_of(dead=amax), "8502"), "c").amax.values()
    assert scale == 127 * 2.0**-24
    assert np.float16(scale / 127) > 0


@pytest.mark.parametrize(
    ("header", "version", "algorithm"),
    [
        ("TRT-8600-MinMaxCalibration", "8600", "MinMaxCalibration"),
        ("TRT-7103-EntropyCalibration", "7103", "EntropyCalibration"),
        ("TRT-100100-EntropyCalibration2\r", "100100", "EntropyCalibration2"),
    ],
)
def test_reads_what_every_calibrator_writes(header: str, version: str, algorithm: str) -> None:
    text = f"{header}\n(Unnamed Layer* 3) [Convolution]_output: 3c010a14\r\na: b: 42fe0000\n\nsilent: 0\n"
    found = read_cache(text, "c")
    assert (found.version, found.algorithm) == (version, algorithm)
    assert list(found.amax) == ["(Unnamed Layer* 3) [Convolution]_output", "a: b", "silent"]
    assert (found.amax["a: b"], found.amax["silent"]) == (127 * 127, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c line 1 is '': a calibration cache begins with TRT-8502-EntropyCalibration2 or the like"),
        ("images: 3c010a14\n", "c line 1 is 'images: 3c010a14': a calibration cache begins with"),
        ("TRT-8.5.2-EntropyCalibration2\n", "c line 1 is 'TRT-8.5.2-EntropyCalibration2'"),
        (f"{HEADER}images 3c010a14\n", "c line 2 is 'images 3c010a14': it should be a tensor's name, ': ' and 8 hex"),
        (f"{HEADER}a: 3c010a14\n\nb: 3c010a1g\n", "c line 4 is 'b: 3c010a1g'"),
        (f"{HEADER}b: 3c010a14f\n", "c line 2 is 'b: 3c010a14f'"),
        (f"{HEADER}: 3c010a14\n", "c line 2 is ': 3c010a14'"),
        (f"{HEADER}b:\n", "c line 2 is 'b:'"),
        (f"{HEADER}b: 7fc00000\n", "c line 2 gives 'b' the scale nan: calibrate again in TensorRT"),
        (f"{HEADER}b: 7f800000\n", "c line 2 gives 'b' the scale inf"),
        (f"{HEADER}b: bf800000\n", "c line 2 gives 'b' the scale -1.0"),
        (f"{HEADER}a: 3c010a14\na: 3c010a15\n", "c line 3 names 'a' a second time: remove the one that is wrong"),
    ],
)
def test_what_is_no_cache_is_refused_by_its_line(text: str, message: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        read_cache(text, "c")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["8.5.2", "", "v8502", "852", "8502\n"])
def test_a_version_is_its_digits(version: str) -> None:
    with pytest.raises(CalibrationError, match="give its digits as in its own caches, 8502 for 8.5.2"):
        write_cache(table_of(), version)


def test_a_name_that_would_be_two_lines_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"^tensor 'a\\nb' has a line break in its name") as caught:
        write_cache(table_of(**{"a\nb": 1.0}), "8502")
    assert "\n" not in str(caught.value)


class TestTable:
    def of_cache(self, cache: CalibrationCache, model: onnx.ModelProto) -> CalibrationTable:
        return table_from_cache(cache, model, images={"sha256": ["0"]}, preprocessing={"size": [32, 32]})

    @pytest.mark.parametrize("arch", ["resnet18", "resnet20", "resnet50v2"])
    def test_ranges_are_symmetric_but_begin_at_0_behind_a_relu(
        self, network: Network, distinct_ranges: Callable[[onnx.ModelProto], CalibrationTable], arch: str
    ) -> None:
        model = network(arch, 32)
        table = distinct_ranges(model)
        found = self.of_cache(read_cache(write_cache(table, "8502"), "c"), model)
        found.check_fits(model)
        assert (found.method, found.images, found.preprocessing) == (
            "TensorRT EntropyCalibration2", {"sha256": ["0"]}, {"size": [32, 32]},
        )  # fmt: skip
        relus = {output for node in model.graph.node if node.op_type == "Relu" for output in node.output}
        pools = {output for node in model.graph.node if node.op_type == "MaxPool" for output in node.output}
        never_negative = relus | (set() if arch == "resnet50v2" else pools)  # V2 pools what the stem gives, unrectified
        assert set(found.ranges) == set(table.ranges)
        assert never_negative & set(found.ranges)
        for name, r in found.ranges.items():
            assert r.amax == pytest.approx(table.ranges[name].amax, rel=2.0**-23)
            assert (r.low, r.high) == (0 if name in never_negative else -r.amax, r.amax)
            assert (r.minimum, r.maximum) == (r.low, r.high)

    @pytest.mark.parametrize("scheme", INT8_SCHEMES)
    def test_it_quantizes(
        self, network: Network, distinct_ranges: Callable[[onnx.ModelProto], CalibrationTable], scheme: str
    ) -> None:
        model = network("resnet20", 32)
        table = self.of_cache(read_cache(write_cache(distinct_ranges(model), "8502"), "c"), model)
        assert len(insert_qdq(model, table, SCHEMES[scheme]).quantized_layers) == 19

    def test_missing_tensors_are_named_and_others_left_aside(
        self, network: Network, distinct_ranges: Callable[[onnx.ModelProto], CalibrationTable]
    ) -> None:
        model = network("resnet20", 32)
        whole = read_cache(write_cache(distinct_ranges(model), "8502"), "c")
        more = replace(whole, amax={**whole.amax, "conv1": 3.0, "stranger": 4.0})
        assert self.of_cache(more, model) == self.of_cache(whole, model)
        lacking = {name: value for name, value in whole.amax.items() if name not in ("relu", "layer3.0.conv2")}
        with pytest.raises(CalibrationError) as caught:
            self.of_cache(replace(whole, amax=lacking), model)
        assert str(caught.value) == (
            f"the cache lacks 2 of the {len(whole.amax)} tensors that INT8 needs (relu, layer3.0.conv2): give the ONNX "
            f"file that TensorRT calibrated, or run `edge-resnet calibrate` instead"
        )
        with pytest.raises(
            CalibrationError, match=r"lacks 29 of the 29 tensors that INT8 needs \([^,]+(, [^,]+){4}, …\)"
        ):
            self.of_cache(replace(whole, amax={}), model)
