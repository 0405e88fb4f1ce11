"""The numbers of frames and answers against their formulas, and the reference's way through a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_resnet import demo
from edge_resnet.bundle import open_bundle, write_bundle
from edge_resnet.classifier import Prediction
from edge_resnet.drift_reference import MEMBER, Distribution, Reference, answer_numbers, frame_numbers
from edge_resnet.errors import BundleError


def test_a_frame_in_numbers_by_hand() -> None:
    """Two columns in turns, 10 and 30, a little blue on top: mean 20, deviation 10, neighbours 20 apart."""
    frame = np.zeros((6, 8, 1), np.uint8)
    frame[:, 0::2], frame[:, 1::2] = 10, 30
    found = frame_numbers(frame[:, :7])  # as many of either among the left neighbours
    assert found == pytest.approx({"brightness": 20, "contrast": 10, "sharpness": 20})
    colour = np.repeat(frame[:, :7], 3, axis=2)
    colour[..., 2] += 6
    assert frame_numbers(colour)["tint"] == pytest.approx(-6)
    assert frame_numbers(colour[..., ::-1])["tint"] == pytest.approx(6)
    assert frame_numbers(colour)["brightness"] == pytest.approx(22)


def test_a_large_frame_is_looked_at_on_a_grid_that_tells_the_same() -> None:
    photo = np.asarray(Image.open(demo.TEST / "bag" / "00018.png").resize((224, 224)))[:, :, np.newaxis]
    found = frame_numbers(photo)
    assert found["brightness"] == pytest.approx(photo.mean(), rel=0.02)
    assert found["contrast"] == pytest.approx(photo.std(), rel=0.02)
    assert found["sharpness"] == pytest.approx(np.abs(np.diff(photo.astype(float), axis=1)).mean(), rel=0.15)


def test_an_answer_in_numbers_is_that_of_its_softmax() -> None:
    logits = np.random.default_rng(0).normal(0, 4, 1000).astype(np.float32)
    shares = Prediction.of(logits, tuple(map(str, range(1000)))).probabilities
    found = answer_numbers(logits)
    assert found["confidence"] == pytest.approx(shares.max(), rel=1e-5)
    assert found["entropy"] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-5)
    assert answer_numbers(np.float32([5, 5, 5, 5])) == pytest.approx({"confidence": 0.25, "entropy": np.log(4)})
    certain = answer_numbers(np.float32([90, -90, -90]))
    assert certain == pytest.approx({"confidence": 1, "entropy": 0})


def test_bins_are_deciles_and_equal_values_share_one() -> None:
    found = Distribution.of(np.arange(1000.0))
    assert found.shares == pytest.approx([0.1] * 10)
    assert found.edges == pytest.approx([99.9 + 99.9 * index for index in range(9)])
    half = Distribution.of(np.array([1.0] * 50 + list(range(2, 52))))
    assert sum(half.shares) == pytest.approx(1) and len(half.edges) < 9 and half.edges[0] == 1
    assert Distribution.of(np.ones(7)).shares == (0, 1)


def test_a_bundle_has_the_reference_of_its_calibration_images(quick_bundle: Path, few: Path) -> None:
    found = Reference.of_bundle(open_bundle(quick_bundle))
    paths = sorted((few / "calibration").rglob("*.png"))
    assert found.images == len(paths)
    pixels = np.stack([np.asarray(Image.open(path), float) for path in paths])
    assert found.distributions["brightness"].mean == pytest.approx(pixels[:, :, :-1].mean(), rel=1e-5)
    assert set(found.distributions) == {"brightness", "contrast", "sharpness", "confidence", "entropy"}
    assert Reference.from_json(json.loads(found.member()[MEMBER])) == found


def without_or_with(bundle: Path, path: Path, data: bytes | None) -> Path:
    """The bundle with another reference, or none."""
    opened = open_bundle(bundle)
    members = {name: opened.read(name) for name in opened.names if name != MEMBER}
    write_bundle(path, opened.manifest, members if data is None else {**members, MEMBER: data})
    return path


def test_a_bundle_of_before_says_what_to_do(quick_bundle: Path, tmp_path: Path) -> None:
    old = open_bundle(without_or_with(quick_bundle, tmp_path / "old.edge", None))
    with pytest.raises(BundleError, match="bundle 'model' does not say what its images looked like: build it again"):
        Reference.of_bundle(old)


DAMAGES = {
    "no JSON": b"{",
    "no object": b"[]",
    "deeper than JSON may be": b"[" * 65 + b"]" * 65,
    "a number that is none": b'{"format": 1, "images": 3, "distributions": {"x": {"mean": NaN, "deviation": 1,'
    b' "edges": [], "shares": [1]}}}',
    "another format": b'{"format": 2, "images": 3, "distributions": {}}',
    "of nothing": b'{"format": 1, "images": 3, "distributions": {}}',
    "no shares": b'{"format": 1, "images": 3, "distributions": {"x": {"mean": 1, "deviation": 1, "edges": [1]}}}',
    "edges that fall": b'{"format": 1, "images": 3, "distributions": {"x": {"mean": 1, "deviation": 1, "edges": [2, 1],'
    b' "shares": [0.5, 0.25, 0.25]}}}',
}


@pytest.mark.parametrize("data", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_reference_is_refused(data: bytes, quick_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(without_or_with(quick_bundle, tmp_path / "other.edge", data))
    with pytest.raises(BundleError, match=r"drift.json of bundle 'model' is damaged \(.*\): build it again"):
        Reference.of_bundle(bundle)
