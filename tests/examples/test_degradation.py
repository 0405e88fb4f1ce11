"""The degradation experiment on a handful of made-up images: its schedule, its networks, its file."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from edge_resnet.models import ResNet

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def degradation() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import degradation

        yield degradation
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as the Debian package has them: 300 and 20 random images of 28×28."""
    folder, random = tmp_path_factory.mktemp("fashion"), np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 20)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            values = random.integers(0, 256 if len(shape) == 3 else 10, shape, np.uint8)
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    return folder


def test_the_learning_rate_is_the_papers(degradation: ModuleType) -> None:
    schedule = degradation.Schedule(iterations=64_000, look_every=1000, test_images=1)
    at = {iteration: schedule.learning_rate(iteration) for iteration in (0, 399, 400, 31_999, 32_000, 47_999, 48_000)}
    assert at == pytest.approx({0: 0.01, 399: 0.01, 400: 0.1, 31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001})


@pytest.mark.parametrize(("name", "layers", "width"), [("plain56", 56, 64), ("resnet34", 34, 128)])
def test_networks_have_their_depth(degradation: ModuleType, name: str, layers: int, width: int) -> None:
    with torch.device("meta"):
        model = ResNet(degradation.small(name), classes=10, channels=1)
        assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    on_the_way = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d) and "downsample" not in n]
    assert (len(on_the_way) + 1, model.features) == (layers, width)
    assert model.conv1.stride == (1, 1)


def test_images_are_cropped_from_a_padded_frame(degradation: ModuleType) -> None:
    images = torch.arange(28.0 * 28).view(1, 1, 28, 28).repeat(64, 1, 1, 1)
    made = degradation.augment(images, torch.Generator().manual_seed(0))
    assert made.shape == images.shape
    centre = made[:, 0, 4:-4, 4:-4]  # whatever was cut, it never reaches the padding
    steps = centre[:, :, 1:] - centre[:, :, :-1]
    assert {float(step) for step in steps.unique()} == {-1.0, 1.0}  # mirrored or not
    assert (centre[:, 1:] - centre[:, :-1] == 28).all()


def test_a_run_is_written_and_taken_up(degradation: ModuleType, data: Path, tmp_path: Path) -> None:
    schedule = degradation.Schedule(iterations=3, look_every=1, test_images=20)
    rows = degradation.train("plain20", data, schedule, False)
    assert [(name, iteration) for name, iteration, *_ in rows] == [("plain20", i) for i in (1, 2, 3)]
    assert all(0 <= error <= 100 for _, _, *errors in rows for error in errors)
    degradation.write(tmp_path / "rows.csv", rows)
    assert degradation.read(tmp_path / "rows.csv") == [
        (*row[:2], *(round(error, 3) for error in row[2:])) for row in rows
    ]
    assert degradation.read(tmp_path / "none.csv") == []


def test_the_committed_figures_are_of_whole_runs(degradation: ModuleType) -> None:
    rows = degradation.read(EXAMPLES.parent / "docs" / "degradation.csv")
    wanted = range(degradation.FULL.look_every, degradation.FULL.iterations + 1, degradation.FULL.look_every)
    names = [name for pair in degradation.PAIRS for name in pair]
    assert [row[:2] for row in rows] == [(name, iteration) for name in names for iteration in wanted]
    text = (EXAMPLES.parent / "docs" / "resnet.md").read_text(encoding="utf-8")
    last = {row[0]: row[2:] for row in rows}
    for depth in (20, 56, 18, 34):
        plain, residual = f"plain{depth}", f"resnet{depth}"
        figures = [f"{error:.1f}" for error in (*last[plain], *last[residual])]
        line = next(line for line in text.splitlines() if line.startswith(f"| {depth} layers |"))
        assert [cell.strip(" *") for cell in line.strip("|").split("|")[1:]] == figures
