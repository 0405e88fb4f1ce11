"""A network that takes a camera's own buffer: colour, resizing and cropping become part of its graph, and run on the GPU.

The graph does what ``Preprocessing.prepare`` does, in its order, and rounds where it rounds: colour, and resizing, which is
two matrix products with its weights, on the part of the frame that the crop keeps. Bilinear pixels in FP32 are equal.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.errors import GateError, ModelError
from edge_resnet.frames import LUMA_OF_PAIRS, MIXES, SUBSAMPLED, FrameFormat, to_rgb
from edge_resnet.graph_writer import Writer
from edge_resnet.preprocessing import Color, Preprocessing

LUMA = np.array([[19595, 38470, 7471]]) / 65536
"""Pillow's conversion to ``L`` (ITU-R 601-2)."""
_CHANNELS = {Color.RGB: np.eye(3), Color.BGR: np.eye(3)[::-1], Color.GRAY: LUMA}
"""Red, green and blue → the network's channels."""
WORST = 1
"""What a pixel may differ by from the CPU's preprocessing, of 255."""


def with_camera(model: onnx.ModelProto, preprocessing: Preprocessing, frames: FrameFormat) -> onnx.ModelProto:
    """Puts the geometry of a preprocessing in front of a network.

    Args:
        model: takes prepared frames, uint8 N×h×w×C, and begins with a Cast and a Transpose; any float type.
        preprocessing: the network's.
        frames: what the camera gives.

    Returns:
        The same network, but it takes uint8 N×``frames.shape``.

    Raises:
        ModelError: the network begins otherwise.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    cast, transpose = _beginning(graph)
    wanted = helper.get_attribute_value(cast.attribute[0])
    writer = _CameraWriter(_product_type(wanted))
    pixels = writer.prepared(preprocessing, frames)
    if wanted != _product_type(wanted):
        pixels = writer.node("Cast", "camera.typed", [pixels], to=wanted)
    for node in graph.node:
        node.input[:] = [pixels if name == transpose.output[0] else name for name in node.input]
    rest = [node for node in graph.node if node not in (cast, transpose)]
    del graph.node[:]
    graph.node.extend([*writer.nodes, *rest])
    graph.initializer.extend(writer.weights)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", *frames.shape]))
    onnx.checker.check_model(made, full_check=True)
    return made


def _product_type(float_type: int) -> int:
    """What resizing is computed in: FP16 in an FP16 network, else FP32, for BF16 has too few digits."""
    return int(TensorProto.FLOAT16 if float_type == TensorProto.FLOAT16 else TensorProto.FLOAT)


def _beginning(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    def readers(name: str) -> list[onnx.NodeProto]:
        return [node for node in graph.node if name in node.input]

    first = readers(graph.input[0].name)
    second = readers(first[0].output[0]) if len(first) == 1 else []
    if [node.op_type for node in (*first, *second)] != ["Cast", "Transpose"]:
        raise ModelError("the network does not begin with a Cast and a Transpose of its frames: export it again")
    return first[0], second[0]


class _CameraWriter(Writer):
    """Writes the nodes from a camera's buffer to pixels N×C×h×w, whole numbers of 0 to 255 in one float type."""

    def __init__(self, float_type: int) -> None:
        super().__init__()
        self._type = float_type
        self._dtype = helper.tensor_dtype_to_np_dtype(float_type)

    def _floats(self, name: str, value: npt.NDArray[np.floating]) -> str:
        return self.weight(f"camera.{name}", value.astype(self._dtype))

    def _integers(self, name: str, *values: int) -> str:
        return self.weight(f"camera.{name}", np.array(values, np.int64))

    def prepared(self, preprocessing: Preprocessing, frames: FrameFormat) -> str:
        down, across = preprocessing.weights(frames.height, frames.width)
        rows, columns = _used(down.T), _used(across)
        planes = self._planes(frames)
        start, end = (self._integers(f"crop.{at}", rows[i], columns[i]) for i, at in enumerate(("start", "end")))
        planes = self.node("Slice", "camera.crop", [planes, start, end, self._integers("crop.axes", 2, 3)])
        colored = self._colored(planes, preprocessing, frames)
        across_first = preprocessing.interpolation.overshoots or self._dtype != np.float32
        passes = [
            ("across", self._floats("columns", across[slice(*columns)])),
            ("down", self._floats("rows", down[:, slice(*rows)])),
        ]
        small = self._resized(colored, passes if across_first else passes[::-1])
        if preprocessing.channels == 3 and len(MIXES[frames.color][0]) == 1:
            return self.node("Concat", "camera.repeated", [small] * 3, axis=1)
        return small

    def _resized(self, planes: str, passes: list[tuple[str, str]]) -> str:
        """By the two matrices, the first first."""
        (first, weights), (second, others) = passes
        product = self._product(first, weights, planes)
        if self._dtype != np.float32:
            # FP16 cannot always tell to which of two whole numbers Pillow rounds. Rounded twice it would be 2 off at times;
            # once, it is never more than 1 off, for what Pillow's first rounding adds is at most a half.
            product = self._clipped(first, product, self._dtype)
        else:  # what goes down first gives quarters, up to 1020
            product = self._rounded(first, product) if first == "across" else self._whole(first, product)
        return self._rounded(second, self._product(second, others, product))

    def _product(self, side: str, weights: str, planes: str) -> str:
        factors = [planes, weights] if side == "across" else [weights, planes]
        return self.node("MatMul", f"camera.{side}", factors)

    def _planes(self, frames: FrameFormat) -> str:
        """Every plane in full size, N×planes×H×W. The Cast stands first: TensorRT moves no uint8."""
        floats = self.node("Cast", "camera.cast", ["frames"], to=self._type)
        if frames.color in SUBSAMPLED:
            return self._planes_below(floats, frames)
        planes = self.node("Transpose", "camera.transpose", [floats], perm=[0, 3, 1, 2])
        return self._planes_of_pairs(planes, frames) if frames.color in LUMA_OF_PAIRS else planes

    def _planes_below(self, floats: str, frames: FrameFormat) -> str:
        """Of a buffer whose chroma lies below luma, in half the size."""
        height, width = frames.height, frames.width
        parts = self.node(
            "Reshape", "camera.plane", [floats, self._integers("plane.shape", 0, 1, height * 3 // 2, width)]
        )
        luma = self._sliced("luma", parts, 2, 0, height)
        pairs = self._sliced("pairs", parts, 2, height, height * 3 // 2)
        return self._with_chroma(luma, pairs, (height // 2, width // 2), (2, 2))

    def _planes_of_pairs(self, planes: str, frames: FrameFormat) -> str:
        """Of a buffer whose pixels share chroma in pairs."""
        at = LUMA_OF_PAIRS[frames.color]
        luma = self._sliced("luma", planes, 1, at, at + 1)
        pairs = self._sliced("pairs", planes, 1, 1 - at, 2 - at)
        return self._with_chroma(luma, pairs, (frames.height, frames.width // 2), (1, 2))

    def _sliced(self, name: str, values: str, axis: int, start: int, end: int) -> str:
        limits = [
            self._integers(f"{name}.{at}", value) for at, value in (("start", start), ("end", end), ("axis", axis))
        ]
        return self.node("Slice", f"camera.{name}", [values, *limits])

    def _with_chroma(self, luma: str, pairs: str, size: tuple[int, int], times: tuple[int, int]) -> str:
        """Luma, then chroma of a smaller ``size``, in which blue and red lie in turns, repeated to luma's."""
        pairs = self.node("Reshape", "camera.halves", [pairs, self._integers("halves.shape", 0, *size, 2)])
        chroma = self.node("Transpose", "camera.chroma", [pairs], perm=[0, 3, 1, 2])
        scales = self.weight("camera.repeat.scales", np.array([1, 1, *times], np.float32))
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        chroma = self.node("Resize", "camera.repeat", [chroma, "", scales], **attributes)
        return self.node("Concat", "camera.planes", [luma, chroma], axis=1)

    def _colored(self, planes: str, preprocessing: Preprocessing, frames: FrameFormat) -> str:
        """The network's channels in their order; one, if the camera gives grey."""
        matrix, offset = MIXES[frames.color]
        if len(matrix) == 1:
            return planes
        wanted = _CHANNELS[preprocessing.color]
        if _picks(matrix, offset):
            return self._mixed("color", planes, wanted @ matrix, offset[: len(wanted)])
        rgb = self._mixed("rgb", planes, matrix, offset)
        return self._mixed("color", rgb, wanted, np.zeros(len(wanted)))

    def _mixed(self, name: str, planes: str, matrix: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> str:
        """Sums of planes, in float32: FP16 would round some to another whole number, and resizing then to a third."""
        if np.array_equal(matrix, np.eye(len(matrix))) and not offset.any():
            return planes
        if _picks(matrix, offset):
            order = self._integers(f"{name}.order", *matrix.argmax(1).tolist())
            return self.node("Gather", f"camera.{name}", [planes, order], axis=1)
        planes = self.node("Cast", f"camera.{name}.wide", [planes], to=TensorProto.FLOAT)
        axis = self._integers(f"{name}.axis", 1)
        sums = []
        for index, row in enumerate(matrix):
            weights = self.weight(f"camera.{name}.weights.{index}", row.reshape(1, -1, 1, 1).astype(np.float32))
            parts = self.node("Mul", f"camera.{name}.parts.{index}", [planes, weights])
            sums.append(self.node("ReduceSum", f"camera.{name}.sum.{index}", [parts, axis], keepdims=1))
        mixed = self.node("Concat", f"camera.{name}", sums, axis=1)
        shift = self.weight(f"camera.{name}.shift", offset.reshape(1, -1, 1, 1).astype(np.float32))
        return self._rounded(name, self.node("Add", f"camera.{name}.shifted", [mixed, shift]), np.float32)

    def _rounded(self, name: str, values: str, dtype: npt.DTypeLike | None = None) -> str:
        """To the nearest whole number, halves up, within 0..255, of which every float type holds each."""
        pixels = self._clipped(name, self._whole(name, values, dtype), dtype or self._dtype)
        return pixels if dtype is None else self.node("Cast", f"camera.{name}.pixels", [pixels], to=self._type)

    def _whole(self, name: str, values: str, dtype: npt.DTypeLike | None = None) -> str:
        half = self.weight(f"camera.{name}.half", np.array(0.5, dtype or self._dtype))
        return self.node("Floor", f"camera.{name}.floor", [self.node("Add", f"camera.{name}.add", [values, half])])

    def _clipped(self, name: str, values: str, dtype: npt.DTypeLike) -> str:
        limits = [
            self.weight(f"camera.{name}.{end}", np.array(value, dtype)) for end, value in (("low", 0), ("high", 255))
        ]
        return self.node("Clip", f"camera.{name}.clip", [values, *limits])


def _picks(matrix: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> bool:
    """Whether planes only change places."""
    return bool(np.isin(matrix, (0, 1)).all()) and not offset.any()


def _used(weights: npt.NDArray[np.float32]) -> tuple[int, int]:
    """The first pixel with a weight, and the one behind the last; ``weights`` has a row a pixel."""
    used = np.flatnonzero(weights.any(axis=1))
    return int(used[0]), int(used[-1]) + 1


def check_camera(preprocessing: Preprocessing, frames: FrameFormat) -> None:
    """Holds the graph against the preprocessing itself, in FP16 and FP32, on a frame of noise and edges.

    Raises:
        GateError: a pixel differs by more than ``WORST``.
    """
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, frames.shape, np.uint8)
    frame[: frames.shape[0] // 2] = (frame[: frames.shape[0] // 2] // 128) * 255
    wanted = preprocessing.prepare(to_rgb(frame, frames.color))
    for float_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
        session = exact_session(with_camera(_pixels_alone(preprocessing, float_type), preprocessing, frames))
        found = run_frames(session, frame[np.newaxis])[0].transpose(1, 2, 0)
        worst = np.abs(found - wanted).max()
        if worst > WORST:
            raise GateError(
                f"a graph that prepares frames of {frames} is up to {worst:.0f} of 255 off this preprocessing: compile "
                f"without --frames, and let the CPU prepare them"
            )


def _pixels_alone(preprocessing: Preprocessing, float_type: int) -> onnx.ModelProto:
    """A network that gives the pixels that it takes."""
    (height, width), channels = preprocessing.size, preprocessing.channels
    return onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["": 19]>
    g (uint8[batch,{height},{width},{channels}] frames) => (float[batch,{channels},{height},{width}] pixels) {{
        cast = Cast <to={float_type}> (frames) chw = Transpose <perm=[0,3,1,2]> (cast) pixels = Cast <to=1> (chw)
    }}""")
