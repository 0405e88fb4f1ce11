"""When a source counts as lost, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass

from edge_resnet.errors import CameraError


@dataclass(frozen=True)
class Retry:
    """How long to wait for a live source, in seconds, and how often.

    Raises:
        CameraError: a time is not positive, or no attempt is left.
    """

    connect_s: float = 10.0
    """Until it is connected."""
    stall_s: float = 5.0
    """Between two frames; a source that is silent for longer is connected to again."""
    first_wait_s: float = 0.5
    """Before the first new attempt; doubled after each that gave no frame."""
    longest_wait_s: float = 30.0
    attempts: int | None = None
    """In a row that give no frame, before the camera gives up with an error; ``None`` is for ever."""
    from_start: bool = False
    """Try again also where the very first attempt fails, instead of refusing to open."""

    def __post_init__(self) -> None:
        for name in ("connect_s", "stall_s", "first_wait_s", "longest_wait_s"):
            if not getattr(self, name) > 0:
                raise CameraError(f"{name} is {getattr(self, name)}: give seconds, more than 0")
        if self.attempts is not None and self.attempts < 1:
            raise CameraError(f"attempts is {self.attempts}: give 1 or more, or None for no end")

    def wait_s(self, failures: int, draw: float) -> float:
        """Seconds until the next attempt, after so many in a row that failed.

        Doubling spares the camera, and the jitter keeps many robots that lost one camera from all coming back at once.

        Args:
            failures: 1 or more.
            draw: a random number from 0 to 1.
        """
        doubled = self.first_wait_s * 2.0 ** min(failures - 1, 60)
        return min(self.longest_wait_s, doubled) * (0.5 + 0.5 * draw)
