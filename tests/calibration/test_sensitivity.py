"""What single layers cost, and which to leave float."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edge_resnet.calibration import SCHEMES, exact_input, insert_qdq
from edge_resnet.calibration.sensitivity import Sensitivity, float_layers, sensitivities
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.models import ARCHITECTURES, measure

TENSORRT = SCHEMES["tensorrt"]


def test_layers_of_the_demo_add_up(demo: Any, sqnr: Any) -> None:
    start, frames = exact_input(demo.model, demo.table), demo.test_frames[::20]
    told: list[tuple[str, int, int]] = []
    found = sensitivities(start, TENSORRT, frames, lambda *phase: told.append(phase))
    layers = [n.name for n in demo.model.graph.node if n.op_type == "Conv" or n.name.endswith(".add")]
    assert [each.layer for each in found] == layers
    assert told == [("layers", done, len(layers)) for done in range(len(layers) + 1)]
    wanted = run_frames(exact_session(start.model), frames)
    for kept in ([], layers[::2], layers[1::2], layers[: len(layers) // 2]):
        made = insert_qdq(start.model, start.table, TENSORRT, tuple(kept)).model
        sum_db = -10 * math.log10(sum(each.noise for each in found if each.layer not in kept))
        assert sum_db == pytest.approx(sqnr(wanted, run_frames(exact_session(made), frames)), abs=1.5)


def test_multiply_adds_are_those_of_the_architecture(network: Any, distinct_ranges: Any, random_frames: Any) -> None:
    model = network("resnet18", 224)
    found = sensitivities(exact_input(model, distinct_ranges(model)), TENSORRT, random_frames(1, 224))
    linear = 512 * 1000
    wanted = measure(ARCHITECTURES["resnet18"]).gmac
    assert (sum(each.macs for each in found) + linear) / 1e9 == pytest.approx(wanted, rel=1e-3)


HAND = (
    Sensitivity("stem", 10, 40e-6),
    Sensitivity("wide", 60, 30e-6),
    Sensitivity("last", 30, 20e-6),
    Sensitivity("add", 0, 10e-6),
)
"""In sum 1e-4: 40 dB."""


@pytest.mark.parametrize(
    ("least", "kept", "share"),
    [
        (39.0, (), 0.0),
        (40.4, ("add",), 0.0),  # 9e-5 is left: 40.46 dB
        (42.0, ("stem",), 0.1),  # 6e-5, 42.2 dB, without the shortcut, which comes first but is not needed
        (43.0, ("stem", "add"), 0.1),  # 5e-5
        (44.9, ("stem", "last", "add"), 0.4),  # 3e-5
        (99.0, ("stem", "wide", "last", "add"), 1.0),
    ],
)
def test_the_cheapest_layers_that_do(least: float, kept: tuple[str, ...], share: float) -> None:
    found = float_layers(HAND, least)
    assert found.macs_share == pytest.approx(share)
    assert found.sqnr_db >= least
    assert found.keep_float == kept


def test_the_chosen_layers_bring_what_was_predicted(demo: Any, sqnr: Any) -> None:
    start, frames = exact_input(demo.model, demo.table), demo.test_frames[::10]
    found = sensitivities(start, TENSORRT, frames)
    chosen = float_layers(found, 43)
    assert 0 < chosen.macs_share < 0.5
    made = insert_qdq(start.model, start.table, TENSORRT, chosen.keep_float).model
    wanted = run_frames(exact_session(start.model), frames)
    assert sqnr(wanted, run_frames(exact_session(made), frames)) == pytest.approx(chosen.sqnr_db, abs=2)
    assert np.isfinite(chosen.sqnr_db)
