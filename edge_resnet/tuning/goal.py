"""What a tuned recipe shall reach, and which of those that were tried is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_resnet.errors import RecipeError
from edge_resnet.tuning.tried import Tried

AS_FAST = 0.95
"""Of the recipe's own frames a second, where the goal names none: medians of an engine against itself differ by less."""


@dataclass(frozen=True)
class Goal:
    """At least so fast, and losing no more than this."""

    min_fps: float | None
    """Frames a second, one after another; None: those of the recipe as it stands, but for what measuring scatters."""
    max_drop: float
    """Points of top-1 against the original FP32 network at its own size."""

    def __post_init__(self) -> None:
        if self.min_fps is not None and not 0 < self.min_fps < float("inf"):
            raise RecipeError(f"--min-fps is {self.min_fps:g}: give frames a second, more than 0")
        if not -100 <= self.max_drop <= 100:
            raise RecipeError(f"--max-drop is {self.max_drop:g}: give points of top-1 accuracy, from -100 to 100")

    def least_fps(self, own: Tried) -> float:
        """Frames a second to be reached; ``own`` is the recipe as it stands."""
        return AS_FAST * own.fps if self.min_fps is None else self.min_fps

    def shortfalls(self, tried: Tried, own: Tried) -> tuple[float, float]:
        """What is missing, 0 or less where nothing is: the share of frames a second, and points of top-1."""
        return self.least_fps(own) / tried.fps - 1, tried.figures.drop - self.max_drop

    def is_met(self, tried: Tried, own: Tried) -> bool:
        """Whether neither falls short."""
        return max(self.shortfalls(tried, own)) <= 0

    def best(self, all_tried: Sequence[Tried], own: Tried) -> Tried | None:
        """Of those that meet the goal, the one that answers most as FP32 does; of equals the fastest, then the first.

        Nearness is logit SQNR: the drop itself is a handful of images, and whoever had luck with them would win.
        """
        met = [tried for tried in all_tried if self.is_met(tried, own)]
        return max(met, key=lambda tried: (tried.figures.sqnr_db, -tried.latency_ms, -tried.number), default=None)

    def nearest(self, all_tried: Sequence[Tried], own: Tried) -> Tried:
        """The one that falls short by the least, a tenth of the speed counting as much as a tenth of a point."""
        return min(all_tried, key=lambda tried: sum(max(0.0, each) for each in self.shortfalls(tried, own)))


def front(all_tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """Those that no other beats in both latency and nearness to FP32, the fastest first; of equals, the first tried."""
    ordered = sorted(all_tried, key=lambda tried: (tried.latency_ms, -tried.figures.sqnr_db, tried.number))
    found: list[Tried] = []
    for tried in ordered:
        if not found or tried.figures.sqnr_db > found[-1].figures.sqnr_db:
            found.append(tried)
    return tuple(found)
