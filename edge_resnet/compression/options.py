"""What is asked of compression."""

from __future__ import annotations

from dataclasses import dataclass

from edge_resnet.errors import RecipeError

SPARSITIES = ("2:4",)


@dataclass(frozen=True)
class PruneOptions:
    """How far to compress, and how long to make good for it."""

    macs: float | None = None
    """Share of the multiply-adds that may stay, between 0 and 1; None: no channel goes."""
    sparsity: str | None = None
    """One of ``SPARSITIES``; None: weights stay dense."""
    rounds: int = 1
    """In so many parts channels go, each followed by fine-tuning."""
    steps: int = 800
    """Of each fine-tuning, 32 images a step; 0: none."""

    def __post_init__(self) -> None:
        if self.macs is None and self.sparsity is None:
            raise RecipeError('there is nothing to prune: give macs, such as 0.7, or sparsity = "2:4"')
        if self.macs is not None and not 0 < self.macs < 1:
            raise RecipeError(f"macs is {self.macs:g}: give the share of multiply-adds to keep, between 0 and 1")
        if self.sparsity is not None and self.sparsity not in SPARSITIES:
            raise RecipeError(f"sparsity is '{self.sparsity}': choose one of {', '.join(SPARSITIES)}")
        if self.rounds < 1:
            raise RecipeError(f"rounds is {self.rounds}: give a whole number, 1 or more")
        if self.steps < 0:
            raise RecipeError(f"steps is {self.steps}: give a whole number, 0 or more")
