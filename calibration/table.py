"""CalibrationTable: the range of every tensor, and how it was obtained."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from edge_resnet.calibration.observers import TensorRange
from edge_resnet.errors import CalibrationError

FORMAT = 1


@dataclass(frozen=True)
class CalibrationTable:
    """Ranges by tensor name. Belongs to one model and one set of images."""

    method: str
    model: str
    """``model_digest`` of the FP32 ONNX."""
    images: dict[str, Any]
    """The image set's manifest: hashes, class counts."""
    preprocessing: dict[str, Any]
    ranges: dict[str, TensorRange]
    weight_scales: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Of weights that refinement has rounded already, one a channel (axis 0): their values are multiples of these."""

    def with_ranges(self, model: onnx.ModelProto, ranges: dict[str, TensorRange]) -> CalibrationTable:
        """The table of a refined model: some ranges replaced or added."""
        return replace(self, model=model_digest(model), ranges={**self.ranges, **ranges})

    def check_fits(self, model: onnx.ModelProto) -> None:
        """Refuses a table that was made for another model.

        Raises:
            CalibrationError: the digests differ.
        """
        digest = model_digest(model)
        if digest != self.model:
            raise CalibrationError(
                f"the calibration table was made for another model ({self.model[:12]}, this one is {digest[:12]}): "
                f"run `edge-resnet calibrate` on this model"
            )

    def __getitem__(self, tensor: str) -> TensorRange:
        if tensor not in self.ranges:
            raise CalibrationError(f"the calibration table has no tensor '{tensor}': calibrate this model again")
        return self.ranges[tensor]

    def to_json(self) -> str:
        """The table as text; equal tables give equal text."""
        document = {
            "format": FORMAT,
            "method": self.method,
            "model": self.model,
            "images": self.images,
            "preprocessing": self.preprocessing,
            "ranges": {name: r.to_json() for name, r in self.ranges.items()},
            "weight_scales": self.weight_scales,
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> CalibrationTable:
        """Reads a table; ``name`` is for messages.

        Raises:
            CalibrationError: the text is no calibration table of this format.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CalibrationError(f"{name}: not a calibration table ({error}): make one with `calibrate`") from error
        kinds = {
            "method": str,
            "model": str,
            "images": dict,
            "preprocessing": dict,
            "ranges": dict,
            "weight_scales": dict,
        }
        wanted = {"format", *kinds}
        if (
            not isinstance(document, dict)
            or set(document) != wanted
            or not all(isinstance(document[key], kind) for key, kind in kinds.items())
        ):
            raise CalibrationError(f"{name}: not a calibration table: make one with `edge-resnet calibrate`")
        if document["format"] != FORMAT:
            raise CalibrationError(
                f"{name}: calibration table format {document['format']}, this version reads {FORMAT}: calibrate again"
            )
        try:
            ranges = {tensor: TensorRange.from_json(values) for tensor, values in document["ranges"].items()}
            scales = {weight: _scales(weight, values) for weight, values in document["weight_scales"].items()}
        except CalibrationError as error:
            raise CalibrationError(f"{name}: {error}") from error
        return cls(document["method"], document["model"], document["images"], document["preprocessing"], ranges, scales)


def _scales(weight: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(
        isinstance(v, (int, float)) and 0 < v <= sys.float_info.max for v in values
    ):
        raise CalibrationError(f"the scales of '{weight}' are {values!r:.60}: they must be positive numbers")
    return tuple(float(value) for value in values)


def model_digest(model: onnx.ModelProto) -> str:
    """SHA-256 (hex) of a model's graph: weights, nodes and shapes; metadata such as labels does not count."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
