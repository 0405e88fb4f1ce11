"""FP32 beside the engine: the bundle's own FP32 answers, from the frames that the engine had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_resnet.bundle import open_bundle
from edge_resnet.classifier import Prediction
from edge_resnet.frames import CameraFrame, FrameColor
from edge_resnet.golden import read_golden
from edge_resnet.web.beside import Fp32Beside


def test_it_answers_as_the_fp32_network_did_when_the_bundle_was_built(quick_bundle: Path) -> None:
    bundle = open_bundle(quick_bundle)
    assert bundle.manifest.labels is not None
    beside = Fp32Beside(bundle, bundle.manifest.labels)
    wanted = read_golden(bundle, "fp32")
    for index, (pixels, logits) in enumerate(zip(read_golden(bundle, "frames"), wanted, strict=True)):
        frame = CameraFrame(pixels, FrameColor.GRAY, 0.0, index)
        right = Prediction.of(logits, bundle.manifest.labels, frame=frame)
        given = (
            right if index else replace(right, index=(right.index + 1) % 10)
        )  # the first is said to be another class
        found = beside(given)
        np.testing.assert_allclose(found.fp32.logits, logits, rtol=1e-4, atol=1e-4)
        assert found.given is given and found.fp32.frame is frame
        assert (found.compared, found.agreed) == (index + 1, index)


def test_a_colour_frame_is_prepared_as_the_bundle_says(quick_bundle: Path) -> None:
    """NV12 of a grey picture, twice as large: the network sees what it would see of the picture."""
    bundle = open_bundle(quick_bundle)
    assert bundle.manifest.labels is not None
    beside = Fp32Beside(bundle, bundle.manifest.labels)
    large = read_golden(bundle, "frames")[0].repeat(2, 0).repeat(2, 1)
    luma = np.rint(16 + large * (219 / 255)).astype(np.uint8)
    nv12 = np.concatenate([luma, np.full((28, 56, 1), 128, np.uint8)])
    answers = []
    for pixels, color in ((large, FrameColor.GRAY), (nv12, FrameColor.NV12)):
        frame = CameraFrame(pixels, color, 0.0, 0)
        answers.append(beside(Prediction.of(np.zeros(10, np.float32), bundle.manifest.labels, frame=frame)).fp32)
    assert answers[0].index == answers[1].index
    assert answers[0].probability == pytest.approx(answers[1].probability, abs=0.02)
