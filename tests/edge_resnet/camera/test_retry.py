"""How long a camera that was lost is waited for."""

from __future__ import annotations

import pytest

from edge_resnet.camera import Retry
from edge_resnet.errors import CameraError


def test_the_wait_doubles_up_to_its_bound() -> None:
    retry = Retry(first_wait_s=0.5, longest_wait_s=6)
    assert [retry.wait_s(failures, draw=1) for failures in range(1, 7)] == [0.5, 1, 2, 4, 6, 6]
    assert retry.wait_s(100_000, draw=1) == 6


def test_jitter_takes_up_to_a_half_off() -> None:
    retry = Retry(first_wait_s=2)
    assert [retry.wait_s(1, draw) for draw in (0, 0.5, 1)] == [1, 1.5, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stall_s": 0}, "stall_s is 0: give seconds, more than 0"),
        ({"connect_s": float("nan")}, "connect_s is nan: give seconds"),
        ({"attempts": 0}, "attempts is 0: give 1 or more, or None for no end"),
    ],
)
def test_times_that_are_none_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        Retry(**values)  # type: ignore[arg-type]
