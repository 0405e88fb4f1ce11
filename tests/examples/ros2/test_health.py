"""What a node tells of itself, moment by moment."""

from __future__ import annotations

from health import ERROR, OK, WARN, Health


def test_from_silence_to_frames_to_a_refusal_to_silence() -> None:
    health = Health(stale_after=1.0)
    assert health.report(now=0.5)[0] == WARN
    health.answer(age=0.002, came=1.0, went=1.010)
    health.answer(age=0.004, came=1.1, went=1.130)
    health.answer(age=0.003, came=1.2, went=1.220)
    level, summary, values = health.report(now=1.5)
    assert (level, summary) == (OK, "classifying")
    assert values == {
        "frames answered": "3",
        "frames refused": "0",
        "age of a frame, ms": "median 3.0, worst 4.0",
        "frame to answer, ms": "median 20.0, worst 30.0",
    }
    health.refusal("encoding is '8UC3'", came=1.6)
    assert health.report(now=1.7) == (ERROR, "encoding is '8UC3'", {"frames answered": "3", "frames refused": "1"})
    health.answer(age=0.002, came=1.8, went=1.9)
    assert health.report(now=2.0)[0] == OK
    assert health.report(now=3.0)[:2] == (WARN, "no frame for 1.2 s")
