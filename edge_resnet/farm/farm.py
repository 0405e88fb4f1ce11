"""What every farm does, and the one that is this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edge_resnet.build_target import BuiltTarget, Wanted
from edge_resnet.cluster.connection import connected
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target
from edge_resnet.stages import Stages

Make = Callable[[Wanted, Stages], BuiltTarget]
"""Builds one target with the compiler that ``Wanted`` has; a refusal is in the result."""


class Farm:
    """Compiles in this process, one target after the other."""

    def check_options(self, target: Target, options: BuildOptions) -> None:
        """Refuses what the compiler for a target would not take, before any work is done, where that is known here.

        Raises:
            EngineError, UnavailableError: as ``Engine.check_options``.
        """
        engine_class(target.kind).check_options(options)

    def build(
        self, wanted: Sequence[Wanted], prepare: Callable[[Wanted], None], make: Make, stages: Stages
    ) -> list[BuiltTarget]:
        """Builds all targets.

        Args:
            wanted: the targets, with the compilers of this process.
            prepare: does what ``make`` of a target would do before it compiles, so that no device need wait for it.
            make: builds one; may be called from several threads at once.
            stages: the build's own; ``make`` gets others from other threads.

        Returns:
            One for each, in order.
        """
        return [make(each, stages) for each in wanted]


HERE = Farm()


@contextmanager
def farm_at(address: str | None) -> Iterator[Farm]:
    """The farm of a Ray cluster, for as long as the context is open; without an address, this process.

    Raises:
        UnavailableError: as ``connected``.
    """
    if address is None:
        yield HERE
        return
    with connected(address):
        from edge_resnet.farm.ray_farm import RayFarm  # needs Ray, and ``connected`` says so where it is missing

        yield RayFarm()
