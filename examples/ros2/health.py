"""What a node tells ``/diagnostics`` of itself. Needs no ROS."""

from __future__ import annotations

from dataclasses import dataclass, field

OK, WARN, ERROR = 0, 1, 2
"""Levels of ``diagnostic_msgs/DiagnosticStatus``."""


@dataclass
class Health:
    """Counts since the node was configured, and the times of the frames since the last report."""

    stale_after: float
    """Seconds without a frame that are worth a warning."""
    answered: int = 0
    refused: int = 0
    error: str = ""
    """Why the newest frame was refused; empty once one is answered."""
    last_frame: float | None = None
    """When it came, in seconds of ``time.monotonic``."""
    ages: list[float] = field(default_factory=list)
    """Of frames that came, in seconds since their stamp."""
    durations: list[float] = field(default_factory=list)
    """From a frame's coming to its answer's going, in seconds."""

    def answer(self, age: float, came: float, went: float) -> None:
        """A frame was classified."""
        self.answered, self.error, self.last_frame = self.answered + 1, "", came
        self.ages.append(age)
        self.durations.append(went - came)

    def refusal(self, error: str, came: float) -> None:
        """A frame could not be classified."""
        self.refused, self.error, self.last_frame = self.refused + 1, error, came

    def report(self, now: float) -> tuple[int, str, dict[str, str]]:
        """Level, summary and values; the times begin anew."""
        values = {"frames answered": str(self.answered), "frames refused": str(self.refused)}
        for name, times in (("age of a frame, ms", self.ages), ("frame to answer, ms", self.durations)):
            if times:
                middle, worst = sorted(times)[len(times) // 2], max(times)
                values[name] = f"median {middle * 1e3:.1f}, worst {worst * 1e3:.1f}"
        self.ages, self.durations = [], []
        if self.error:
            return ERROR, self.error, values
        if self.last_frame is None:
            return WARN, "no frame has come yet: check the topic, and that its publisher's QoS fits", values
        if now - self.last_frame > self.stale_after:
            return WARN, f"no frame for {now - self.last_frame:.1f} s", values
        return OK, "classifying", values
