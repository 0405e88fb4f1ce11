"""The compiler's options as flags, and back."""

from __future__ import annotations

from dataclasses import fields

import pytest

from edge_resnet.engine_options import FLAGS, as_flags, next_step, parse_batches
from edge_resnet.engines.options import NOT_ASKED, BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import EngineError


def test_every_option_that_a_person_chooses_has_a_flag() -> None:
    assert FLAGS.keys() == {field.name for field in fields(BuildOptions)} - NOT_ASKED


@pytest.mark.parametrize(("text", "sizes"), [("1,1,8", (1, 1, 8)), ("4", (4, 4, 4)), ("1, 2, 3", (1, 2, 3))])
def test_batches(text: str, sizes: tuple[int, int, int]) -> None:
    assert parse_batches(text) == BatchRange(*sizes)


@pytest.mark.parametrize("text", ["", "1,8", "1,1,8,9", "one", "-1", "1.5", "²"])
def test_batches_that_are_none(text: str) -> None:
    with pytest.raises(EngineError, match=f"^--batch is '{text}': give smallest, typical and largest, such as 1,1,8"):
        parse_batches(text)


def test_the_next_step_is_a_command_that_can_be_run() -> None:
    """On the device; for one whose Python is too old for this package, by trtexec."""
    options = BuildOptions(workspace_mb=512)
    assert next_step("my model.edge", target_named("jetson-orin-nx"), options) == (
        "edge-resnet compile 'my model.edge' --target jetson-orin-nx --workspace 512"
    )
    assert next_step("m.edge", target_named("jetson-xavier-nx"), options) == (
        "edge-resnet export-trtexec m.edge --target jetson-xavier-nx --workspace 512 -o jetson-xavier-nx"
    )


def test_flags_say_what_was_chosen() -> None:
    assert as_flags(BuildOptions(timing_cache=b"measured")) == ""
    options = BuildOptions(
        BatchRange(2, 2, 2),
        workspace_mb=64,
        tf32=True,
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
        dla_core=0,
    )
    assert as_flags(options) == " --batch 2,2,2 --workspace 64 --tf32 --hardware-compatible ampere-plus --dla 0"
