"""Answers as messages: against the published definitions of vision_msgs, which no package index has."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from answers import as_classification, as_json

from edge_resnet import Prediction

DEFINITIONS = {  # vision_msgs 4 (ROS 2 Humble to Kilted), without comments
    "Classification": "std_msgs/Header header\nObjectHypothesis[] results",
    "ObjectHypothesis": "string class_id\nfloat64 score",
}
DEFAULTS = {"string": "", "float64": 0.0, "std_msgs/Header": None}
HEADER = SimpleNamespace(stamp=SimpleNamespace(sec=12, nanosec=345), frame_id="camera")
TOP = Prediction.of(np.array([0.0, 2.0, 1.0], np.float32), ("bag", "coat", "dress")).top(2)


def strict(name: str) -> type:
    """A message class as rosidl makes it: the definition's fields with their types and no others."""
    fields = [line.split() for line in DEFINITIONS[name].splitlines()]

    class Message:
        __slots__ = tuple(field for _, field in fields)

        def __init__(self) -> None:
            for kind, field in fields:
                object.__setattr__(self, field, [] if kind.endswith("[]") else DEFAULTS[kind])

        def __setattr__(self, field: str, value: object) -> None:
            kind = {field: kind for kind, field in fields}[field]
            assert kind not in ("string", "float64") or type(value) is type(DEFAULTS[kind]), (field, value)
            object.__setattr__(self, field, value)

    return Message


def test_vision_msgs_are_filled_as_they_are_defined() -> None:
    message = as_classification(strict("Classification"), strict("ObjectHypothesis"), HEADER, TOP)
    assert message.header is HEADER
    assert [(result.class_id, result.score) for result in message.results] == [
        ("coat", pytest.approx(np.exp(2) / (1 + np.exp(1) + np.exp(2)))),
        ("dress", pytest.approx(np.exp(1) / (1 + np.exp(1) + np.exp(2)))),
    ]


def test_json_has_the_same_fields() -> None:
    message = as_classification(strict("Classification"), strict("ObjectHypothesis"), HEADER, TOP)
    assert json.loads(as_json(HEADER, TOP)) == {
        "header": {"stamp": {"sec": 12, "nanosec": 345}, "frame_id": "camera"},
        "results": [{"class_id": result.class_id, "score": result.score} for result in message.results],
    }
