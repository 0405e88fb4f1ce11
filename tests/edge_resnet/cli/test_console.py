"""The bars that a person watches."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edge_resnet.cli import _console
from edge_resnet.cli._console import BarProgress


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_a_phase_stands_beside_its_stage_and_has_its_own_steps_and_time_left() -> None:
    console = terminal()
    progress = BarProgress(console)
    with progress.stage("quantize for tensorrt"):
        for done in range(33):
            progress.update_phase("round: patches", done, 32)
        assert progress._bars is not None
        (task,) = progress._bars.tasks
        assert task.time_remaining is not None
        before = task.elapsed
        progress.update_phase("bias: layers", 0, 32)
        assert task.time_remaining is None, "of as many steps, but of another speed"
        assert before is not None and task.elapsed is not None and task.elapsed >= before > 0
        progress._bars.refresh()
        shown = str(console.file.getvalue())  # type: ignore[attr-defined]
        assert "quantize for tensorrt" in shown and "bias: layers" in shown and " 0/32" in shown
    assert task.finished


def test_away_from_a_terminal_nothing_is_drawn_and_notes_are_lines() -> None:
    console = Console(file=io.StringIO(), width=40)
    progress = BarProgress(console)
    with progress.stage("quantize"):
        progress.update_phase("round: layers", 1, 2)
    note = "a note that is longer than forty columns stays on one line"
    progress.note(note)
    assert str(console.file.getvalue()).strip() == note  # type: ignore[attr-defined]


def test_work_in_several_threads_has_a_bar_each_below_one_another() -> None:
    console = terminal()
    first = BarProgress(console)
    second = first.beside()
    with first.stage("compile for rtx-30"):
        with second.stage("compile for rtx-40"):
            first.update_phase("build engine", 1, 7)
            second.update_phase("tactics", 2, 9)
        with second.stage("check rtx-40", 5):
            second.advance(3)
            assert first._bars is not None and second._bars is first._bars
            shown = [(task.description, task.completed, task.total) for task in first._bars.tasks]
            assert shown == [("compile for rtx-30", 1, 7), ("compile for rtx-40", 9, 9), ("check rtx-40", 3, 5)]
            first._bars.refresh()
    lines = str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]
    assert all(sum(name in line for name in ("rtx-30", "rtx-40")) < 2 for line in lines)
    second.note("noted")
    assert first.notes == ["noted"], "one document has them all"
    with first.stage("bundle"):
        assert first._bars is not None and len(first._bars.tasks) == 1, "what is finished stays as it is"


def test_a_narrow_terminal_breaks_sentences_but_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Console(file=io.StringIO(), width=60)
    monkeypatch.setattr(_console, "_OUT", narrow)
    why = "TensorRT compiles only on the device itself: needs an NVIDIA GPU with SM 87"
    _console.print_table(
        None, ("target", "kind", "fp", "why"), [("jetson-agx-xavier", "onnxruntime", "fp32 fp16 bf16 int8 fp8", why)]
    )
    lines = str(narrow.file.getvalue()).splitlines()  # type: ignore[attr-defined]
    assert sum("jetson-agx-xavier  onnxruntime" in line for line in lines) == 1
    assert all(word in "\n".join(lines) for word in why.split()) and max(map(len, lines)) <= 60
