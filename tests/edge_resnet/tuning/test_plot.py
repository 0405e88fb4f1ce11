"""The picture of a search: every trial stands where its figures say, and no word is cut."""

from __future__ import annotations

import pytest

pytest.importorskip("optuna", reason="needs the extra 'tune'")
from matplotlib.backends.backend_agg import FigureCanvasAgg

from edge_resnet.recipe import Recipe
from edge_resnet.tuning.goal import Goal
from edge_resnet.tuning.plot import front_figure
from edge_resnet.tuning.tried import Figures, Settings, Tried
from edge_resnet.tuning.tune import Tuned


def tried(number: int, latency_ms: float, sqnr_db: float, drop: float) -> Tried:
    settings = Settings("mse", "fast", (), (), None, None)
    return Tried(number, settings, Figures(100, sqnr_db, 0.99, 0.9, drop, (drop - 1, drop + 0.5)), latency_ms)


def test_every_trial_stands_at_its_figures(small_recipe: Recipe) -> None:
    own, fast, beaten = tried(0, 10, 30, 0.0), tried(1, 8, 28, 0.2), tried(2, 12, 25, 1.5)
    figures = own.figures
    tuned = Tuned(
        Goal(90, 0.5), "cpu", "measured", "measured", own, own, True, figures, figures, (own, fast, beaten), 5, False,
        small_recipe,
    )  # fmt: skip
    figure = front_figure(tuned)
    FigureCanvasAgg(figure).draw()
    nearness, drop = figure.axes
    points = {
        (line.get_label(), float(x), float(y))
        for line in nearness.lines
        for x, y in zip(*line.get_data(), strict=True)
        if not str(line.get_label()).startswith("_")
    }
    assert points == {
        ("trial", 12.0, 25.0),
        ("on the front", 8.0, 28.0),
        ("on the front", 10.0, 30.0),
        ("the recipe as it stands", 10.0, 30.0),
        ("chosen", 10.0, 30.0),
    }
    assert "measured" in nearness.get_xlabel() and drop.get_xlabel() == nearness.get_xlabel()
    for word in (*figure.legends[0].get_texts(), nearness.xaxis.label, drop.yaxis.label, nearness.yaxis.label):
        box, whole = word.get_window_extent(), figure.bbox
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1 and whole.y0 <= box.y0 < box.y1 <= whole.y1, word
