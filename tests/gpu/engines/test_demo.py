"""The demo on a GPU: INT8 answers against the exact prediction, and what a run costs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_resnet import demo
from edge_resnet.bundle import open_bundle
from edge_resnet.compiling import lowered_from_bundle
from edge_resnet.engines._tensorrt import TensorRtFamily
from edge_resnet.engines.cuda import gpu_sm
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.images import open_images
from edge_resnet.preprocessing import NAMED

SM = gpu_sm()

pytestmark = pytest.mark.skipif(SM is None, reason="needs an NVIDIA GPU")


@pytest.mark.parametrize(
    ("engine", "like"), [(TensorRtEngine, "jetson-agx-orin"), (TensorRtRtxEngine, "rtx")], ids=["tensorrt", "rtx"]
)
def test_int8_answers_are_those_that_were_predicted(
    engine: type[TensorRtFamily],
    like: str,
    record: Callable[[str, float, str], None],
    request: pytest.FixtureRequest,
) -> None:
    target = dataclasses.replace(target_named(like), name="this-host", sms=(SM or 0,), sms_at={})
    reason = engine.why_not_compile(target) or engine.why_not_run(target)
    if reason is not None:
        pytest.skip(reason)
    demo_bundle: Path = request.getfixturevalue("demo_bundle")
    lowered = lowered_from_bundle(demo_bundle, open_bundle(demo_bundle), engine)
    frames = open_images(demo.TEST).pixels(NAMED["fashion-mnist"])
    predicted = lowered.predicted(frames)
    with engine(engine.compile(lowered.compiled_from, target).data) as running:
        answers = np.concatenate([running.run(frames[index : index + 4]) for index in range(0, len(frames), 4)])
        times = []
        for index in range(1000):
            start = time.perf_counter()
            running.run(frames[index % len(frames)][np.newaxis])
            times.append(1e6 * (time.perf_counter() - start))
    sqnr_db = 10 * np.log10(np.square(predicted).sum() / np.square(predicted - answers).sum())
    record(f"{engine.product}, demo, logits against the prediction", sqnr_db, "dB")
    record(f"{engine.product}, demo, one frame, median", float(np.median(times)), "µs")
    assert sqnr_db > 35  # what is not INT8 is FP16 there and FP32 in the prediction
    assert (predicted.argmax(1) == answers.argmax(1)).mean() > 0.995
