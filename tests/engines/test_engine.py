"""What the base class does for every engine."""

from __future__ import annotations

import numpy as np
import pytest

from edge_resnet.engines.engine import Answers, Frames, InputSpec
from edge_resnet.engines.ort import OrtEngine


class Doubling(OrtEngine):
    """Answers each frame with twice its first pixel, in batches of four to six."""

    def _open(self, data: bytes, cuda: str | None) -> None:
        self.input, self.output = InputSpec(1, 1, 1, max_batch=6, min_batch=4), (1,)
        self.seen: list[int] = []

    def _run(self, frames: Frames, out: Answers | None) -> Answers:
        self.seen.append(len(frames))
        answers: Answers = (2 * frames.reshape(-1, 1)).astype(np.float32)
        if out is None:
            return answers
        out[...] = answers
        return out


@pytest.mark.parametrize(("count", "run"), [(1, 4), (3, 4), (4, 4), (6, 6)])
def test_a_batch_that_is_too_small_is_filled_up_and_no_answer_too_many_comes_out(count: int, run: int) -> None:
    engine = Doubling(b"")
    frames = np.arange(1, count + 1, dtype=np.uint8).reshape(count, 1, 1, 1)
    np.testing.assert_array_equal(engine.run(frames), 2 * np.arange(1, count + 1, dtype=np.float32).reshape(-1, 1))
    assert engine.seen == [run]
    out = np.zeros((count, 1), np.float32)
    assert engine.run(frames, out) is out
    np.testing.assert_array_equal(out, engine.run(frames))
