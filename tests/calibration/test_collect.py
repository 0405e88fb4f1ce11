"""Collected ranges, against numpy on an independent run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edge_resnet.calibration import OBSERVERS, CalibrationTable, collect
from edge_resnet.calibration.collect import SAMPLE, Observed, merge, observe, observed_tensors, ranges_of
from edge_resnet.errors import CalibrationError

Network = Callable[..., onnx.ModelProto]
Frames = npt.NDArray[np.uint8]

every_method = pytest.mark.parametrize("method", OBSERVERS)


def collected(model: onnx.ModelProto, frames: Frames, batch: int = 4, method: str = "minmax") -> CalibrationTable:
    batches = [frames[start : start + batch] for start in range(0, len(frames), batch)]
    return collect(model, batches, method=method, images={"images": len(frames)}, preprocessing={"size": 1})


@pytest.mark.parametrize("arch", ["resnet18", "resnet20"])
def test_ranges_are_the_extremes_of_all_images(
    network: Network, random_frames: Callable[..., Frames], tensors_of: Callable[..., Any], arch: str
) -> None:
    model, frames = network(arch, 32), random_frames(6, 32)
    table = collected(model, frames)
    results = tensors_of(model, frames, list(table.ranges))
    for name, found in table.ranges.items():
        values = results[name]
        tolerance = 1e-5 * float(np.abs(values).max())
        assert found.minimum == pytest.approx(values.min(), abs=tolerance)
        assert found.maximum == pytest.approx(values.max(), abs=tolerance)
        assert found.amax == max(-found.minimum, found.maximum)


@pytest.mark.parametrize("arch", ["resnet18", "resnet20", "resnet50"])
def test_observes_what_convolutions_adds_and_poolings_give_behind_their_relu(network: Network, arch: str) -> None:
    model = network(arch, 32)
    names = observed_tensors(model)
    assert len(set(names)) == len(names)
    assert names[0] == "preprocessing.mul"
    rectified = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    wanted = {
        rectified.get(node.output[0], node.output[0])
        for node in model.graph.node
        if node.op_type in ("Conv", "Add", "MaxPool")
    }
    moved = {node.output[0] for node in model.graph.node if node.op_type == "Pad"}
    assert set(names) - moved == {"preprocessing.mul", *wanted}


def test_what_a_relu_gives_has_no_negative_minimum(network: Network, random_frames: Callable[..., Frames]) -> None:
    table = collected(network("resnet20", 32), random_frames(4, 32), method="mse")
    rectified = [name for name in table.ranges if "relu" in name]
    assert len(rectified) == 19
    for name in rectified:
        assert table.ranges[name].minimum >= 0
        assert table.ranges[name].low == 0


@every_method
def test_batches_make_no_difference(network: Network, random_frames: Callable[..., Frames], method: str) -> None:
    model, frames = network("resnet20", 32), random_frames(8, 32)
    tables = {collected(model, frames, batch, method).to_json() for batch in (1, 3, 8)}
    assert len(tables) == 1


def test_threads_make_no_difference(
    network: Network, random_frames: Callable[..., Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frames, tables = network("resnet18", 96), random_frames(4, 96), set()
    for threads in (1, 2, 3):
        monkeypatch.setitem(collect.__globals__, "Observed", partial(Observed, threads=threads))
        tables.add(collected(model, frames, 2, "mse").to_json())
    assert len(tables) == 1


def test_progress_counts_images_that_are_observed(network: Network, random_frames: Callable[..., Frames]) -> None:
    done: list[int] = []
    frames = random_frames(7, 32)
    batches = [frames[:4], frames[4:6], frames[6:]]
    collect(network("resnet20", 32), batches, method="mse", images={}, preprocessing={}, advance=done.append)
    assert done == [4, 2, 1]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_images_are_observed_one_by_one_in_their_order(
    network: Network, random_frames: Callable[..., Frames], tensors_of: Callable[..., Any], batch: int
) -> None:
    """The moving average of each image's extremes, the frames growing darker from one to the next."""
    darker = np.arange(1, 9, dtype=np.uint8).reshape(-1, 1, 1, 1)
    model, frames = network("resnet20", 32), random_frames(8, 32) // darker
    table = collected(model, frames, batch, "moving-average")
    results = tensors_of(model, frames, list(table.ranges))
    for name, found in table.ranges.items():
        low, high = (ends.astype(np.float64) for ends in (results[name].min((1, 2, 3)), results[name].max((1, 2, 3))))
        tolerance = 1e-5 * float(np.abs(results[name]).max())
        for average, of_images in ((found.low, low), (found.high, high)):
            wanted = of_images[0]
            for end in of_images[1:]:
                wanted = 0.99 * wanted + 0.01 * end
            assert average == pytest.approx(wanted, abs=tolerance)


def test_the_samples_distribution_is_the_tensors(
    network: Network, random_frames: Callable[..., Frames], tensors_of: Callable[..., Any]
) -> None:
    model, frames = network("resnet18", 96), random_frames(8, 96)
    values = tensors_of(model, frames, ["relu"])["relu"]
    assert values[0].size > 3 * SAMPLE  # so that not all of it is sampled
    found = collected(model, frames, method="percentile").ranges["relu"]
    assert found.maximum == pytest.approx(values.max(), rel=1e-5)
    assert found.amax < found.maximum
    assert found.amax == pytest.approx(np.percentile(values, 99.99), rel=0.1)


def test_says_what_it_was_made_from(network: Network, random_frames: Callable[..., Frames]) -> None:
    model = network("resnet20", 16)
    done: list[int] = []
    table = collect(
        model,
        iter([random_frames(2, 16), random_frames(3, 16)]),
        method="mse",
        images={"digest": "d"},
        preprocessing={"size": [16, 16]},
        advance=done.append,
    )
    table.check_fits(model)
    assert (table.method, table.images, table.preprocessing) == ("mse", {"digest": "d"}, {"size": [16, 16]})
    assert done == [2, 3]


@every_method
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("weight", "tensor"),
    [("conv1.weight", "relu"), ("layer2.0.conv2.weight", "layer2.0.relu2"), ("layer3.2.conv2.bias", "layer3.2.conv2")],
)
def test_a_weight_that_is_no_number_is_found_at_the_first_tensor_it_spoils(
    network: Network, random_frames: Callable[..., Frames], method: str, bad: float, weight: str, tensor: str
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(network("resnet20", 32))
    (constant,) = [constant for constant in model.graph.initializer if constant.name == weight]
    value = numpy_helper.to_array(constant).copy()
    value.flat[0] = bad
    constant.CopyFrom(numpy_helper.from_array(value, weight))
    with pytest.raises(CalibrationError, match=rf"^tensor '{tensor}', image 1: a value is NaN or infinite") as caught:
        collected(model, random_frames(3, 32), method=method)
    assert "\n" not in str(caught.value)


def test_the_image_that_spoils_a_tensor_is_named(written: Callable[..., onnx.ModelProto]) -> None:
    constants = {
        "mean": np.zeros((1, 1, 1, 1)),
        "factor": np.full((1, 1, 1, 1), 1e36),
        "w": np.full((1, 1, 1, 1), 1e2),
        "b": np.zeros(1),
    }
    body = "conv = Conv (x, w, b) pool = GlobalAveragePool(conv) logits = Flatten(pool)"
    model = written(body, constants, 2, 2, 1)
    frames = np.ones((5, 2, 2, 1), np.uint8)
    frames[3] = 200
    with pytest.raises(CalibrationError, match="tensor 'conv', image 4:"):
        collected(model, frames, batch=3)


def test_no_images_are_refused(network: Network) -> None:
    with pytest.raises(CalibrationError, match="no calibration images"):
        collected(network("resnet20", 32), np.zeros((0, 32, 32, 3), np.uint8))


def test_an_unknown_method_is_refused_before_any_work(network: Network) -> None:
    with pytest.raises(CalibrationError, match="unknown calibration method 'kl'"):
        collected(network("resnet20", 32), np.zeros((1, 1, 1, 1), np.uint8), method="kl")


@pytest.mark.parametrize("method", [name for name, observer in OBSERVERS.items() if observer.mergeable])
def test_parts_observed_apart_and_merged_are_the_whole(
    network: Network, random_frames: Callable[..., Frames], method: str
) -> None:
    model, frames = network("resnet20", 32), random_frames(7, 32)
    observed = Observed(model)
    first, second = (observed.observers(method) for _ in range(2))
    observe(first, observed.statistics(frames[:4]), 0)
    observe(second, observed.statistics(frames[4:]), 4)
    merge(first, second)
    assert ranges_of(first) == collected(model, frames, 4, method).ranges


def test_moving_averages_are_not_merged(network: Network, random_frames: Callable[..., Frames]) -> None:
    observed = Observed(network("resnet20", 32))
    one, other = (observed.observers("moving-average") for _ in range(2))
    with pytest.raises(CalibrationError, match="depend on the order of the images"):
        merge(one, other)
