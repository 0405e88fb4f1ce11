"""Layers left float: what the CPU's compiler would leave float besides is named, and something stays in INT8."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_resnet.errors import CalibrationError
from edge_resnet.progress import Progress
from edge_resnet.recipe import Recipe
from edge_resnet.stages import Stages
from edge_resnet.tuning.workshop import Workshop


def test_what_is_left_float_builds_and_never_all_of_it(small_recipe: Recipe) -> None:
    workshop = Workshop(small_recipe, "cpu", Stages(Progress()))
    assert workshop.float_layers(0.0) == ()
    some = workshop.float_layers(1.0)
    assert some
    workshop.make(replace(workshop.own, keep_float=some)).close()  # the gate of coverage would refuse it else
    names = [node.name for node in workshop.original.model.graph.node]
    everything = tuple(name for name in names if name.endswith(("conv1", "conv2", "add")))
    with pytest.raises(CalibrationError, match="no convolution is left in INT8"):
        workshop.make(replace(workshop.own, keep_float=everything))
