"""Which plans are refused before the library sees them: NVIDIA's rules, case by case."""

from __future__ import annotations

import pytest

from edge_resnet.engines._tensorrt_plan import why_not_plan

COMPATIBLE = "version_compatible=true"


def why(made: str, here: str, *, sms: str = "87", sm: int | None = 87, options: str = "") -> str | None:
    versions = {"tensorrt": made, "sms": sms} | ({"options": options} if options else {})
    return why_not_plan("TensorRT", versions, ("tensorrt", here), sm)


@pytest.mark.parametrize(
    ("made", "here", "options", "taken"),
    [
        ("10.3.0", "10.3.0", "", True),
        ("10.3.0", "10.3.1", "", False),
        ("10.3.0", "10.7.0", "", False),
        ("10.3.0", "10.7.0", COMPATIBLE, True),
        ("10.3.0.26", "10.3.0.30", COMPATIBLE, True),
        ("10.7.0", "10.3.0", COMPATIBLE, False),
        ("8.6.1", "10.3.0", COMPATIBLE, True),
        ("10.3.0", "11.4.0", f"tf32=true {COMPATIBLE}", True),
        ("8.6.1", "11.4.0", COMPATIBLE, False),
        ("11.4.0", "10.3.0", COMPATIBLE, False),
        ("10.3.0", "11.4.0", "refit=true", False),
    ],
)
def test_a_plan_is_for_the_version_that_made_it(made: str, here: str, options: str, taken: bool) -> None:
    wanted = None if taken else f"it was compiled by TensorRT {made}, and here is {here}"
    assert why(made, here, options=options) == wanted


@pytest.mark.parametrize(
    ("sms", "sm", "options", "taken"),
    [
        ("87", 87, "", True),
        ("87", 86, "", False),
        ("80,86,89", 89, "", True),
        ("80,86,89", 120, "", False),
        ("86", 89, "hardware_compatibility=ampere-plus", True),
        ("86", 75, "hardware_compatibility=ampere-plus", False),
        ("86", 89, "hardware_compatibility=same-compute-capability", False),
        ("", 89, "", True),
        ("86", None, "", True),
    ],
)
def test_a_plan_is_for_the_gpus_that_it_was_made_for(sms: str, sm: int | None, options: str, taken: bool) -> None:
    found = why("10.3.0", "10.3.0", sms=sms, sm=sm, options=options)
    assert found == (None if taken else f"it was compiled for SM {sms.replace(',', ', ')}, and this GPU has SM {sm}")


def test_a_record_that_says_nothing_refuses_nothing() -> None:
    assert why_not_plan("TensorRT", {}, ("tensorrt", "10.3.0"), 87) is None
