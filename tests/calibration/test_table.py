"""The calibration table as text, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.calibration import CalibrationTable, TensorRange
from edge_resnet.calibration.table import model_digest
from edge_resnet.errors import CalibrationError

number = st.floats(allow_nan=False, allow_infinity=False)
ranges = st.dictionaries(st.text(), st.builds(TensorRange, number, number, number, number, number), max_size=4)
documents = st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.text()), max_size=3)

TABLE = CalibrationTable(
    "mse", "a" * 64, {"sha256": ["0" * 64]}, {"size": [8, 8]}, {"relu": TensorRange(0, 2, 1.5, 0, 1.75)}
)


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(TABLE.to_json()), **values})


@given(st.builds(CalibrationTable, st.text(), st.text(), documents, documents, ranges))
def test_reads_back_what_it_wrote(table: CalibrationTable) -> None:
    assert CalibrationTable.from_json(table.to_json(), "t.json") == table
    assert CalibrationTable.from_json(table.to_json().encode(), "t.json").to_json() == table.to_json()


RANGE = {"minimum": 0, "maximum": 1, "amax": 1, "low": 0, "high": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        b"\xff\xfe\x00\x00",
        b"\x89PNG\r\n\x1a\n",
        "null",
        "[1, 2]",
        "{}",
        "[" * 100_000,
        TABLE.to_json()[:-5],
        changed(extra=1),
        changed(ranges=[]),
        changed(ranges={"relu": 1}),
        changed(ranges={"relu": None}),
        changed(ranges={"relu": [0, 1, 1, 0, 1]}),
        changed(ranges={"relu": {**RANGE, "amax": "1"}}),
        changed(ranges={"relu": {**RANGE, "amax": math.nan}}),
        changed(ranges={"relu": {**RANGE, "high": math.inf}}),
        changed(ranges={"relu": {**RANGE, "mean": 0}}),
        changed(ranges={"relu": {"amax": 1}}),
        changed(model=5),
        changed(method=None),
        changed(images=[]),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_refuses_what_is_no_table_in_one_line_with_its_name(text: str | bytes) -> None:
    with pytest.raises(CalibrationError) as caught:
        CalibrationTable.from_json(text, "robot/table.json")
    assert str(caught.value).startswith("robot/table.json: ")
    assert "\n" not in str(caught.value)


def test_refuses_a_format_to_come() -> None:
    with pytest.raises(CalibrationError, match="^t.json: calibration table format 2, this version reads 1"):
        CalibrationTable.from_json(changed(format=2), "t.json")


def test_names_a_tensor_that_it_lacks() -> None:
    assert TABLE["relu"].amax == 1.5
    with pytest.raises(CalibrationError, match="no tensor 'layer1'"):
        TABLE["layer1"]


class TestBelonging:
    def test_fits_its_own_model_whatever_the_metadata(self, network: Callable[..., onnx.ModelProto]) -> None:
        model = network("resnet20", 16)
        table = replace(TABLE, model=model_digest(model))
        renamed = onnx.ModelProto()
        renamed.CopyFrom(model)
        del renamed.metadata_props[:]
        renamed.producer_name = "another"
        table.check_fits(model)
        table.check_fits(renamed)

    def test_does_not_fit_a_model_with_one_weight_changed(self, network: Callable[..., onnx.ModelProto]) -> None:
        model = network("resnet20", 16)
        other = onnx.ModelProto()
        other.CopyFrom(model)
        weight = other.graph.initializer[-1]
        weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
        with pytest.raises(CalibrationError, match="made for another model") as caught:
            replace(TABLE, model=model_digest(model)).check_fits(other)
        assert "\n" not in str(caught.value)

    def test_of_a_refined_model_keeps_the_other_ranges(self, network: Callable[..., onnx.ModelProto]) -> None:
        model = network("resnet20", 16)
        pixels = TensorRange(-128, 127, 127, -128, 127)
        refined = TABLE.with_ranges(model, {"pixels": pixels})
        refined.check_fits(model)
        assert refined.ranges == {**TABLE.ranges, "pixels": pixels}
        assert "pixels" not in TABLE.ranges
