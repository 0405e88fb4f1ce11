"""Licences of what is installed: all are known, and those of what goes onto devices are in docs/licences.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from licences import LOOKED_UP, NVIDIA, known, rows
from license_expression import get_spdx_licensing

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"


def test_the_licence_of_every_package_is_known() -> None:
    found = rows()
    assert {"numpy", "pillow", "onnxruntime", "torch"} <= {name for name, *_ in found}
    assert [name for name, licence, _ in found if licence is None] == []


def test_they_are_licences_by_their_spdx_names() -> None:
    """By the library that knows SPDX's list."""
    licensing = get_spdx_licensing()
    for name, licence, _ in rows():
        if licence != NVIDIA and name != "av":
            assert licensing.validate(licence).errors == [], name


def test_the_page_has_what_goes_onto_devices() -> None:
    lines = PAGE.read_text().splitlines()
    for name, licence, part in rows():
        if part != "build":
            assert f"| {name} | {licence} | {part} |" in lines, "make audit prints the table"


@pytest.mark.parametrize(
    "said", [None, "", "GPL-3.0-only", "MIT AND GPL-2.0-only", "LGPL-2.1-or-later OR MIT", "Proprietary"]
)
def test_what_nobody_has_looked_at_is_not_known(said: str | None) -> None:
    assert known("somebody", said) is None


def test_a_package_that_was_looked_up_and_says_another_thing_by_now_is_not_known() -> None:
    for name, (said, found) in LOOKED_UP.items():
        assert known(name, said) == found
        assert known(name, "MIT") is None


def test_spellings() -> None:
    assert known("somebody", "Apache 2.0") == "Apache-2.0"
    assert known("somebody", "BSD-3-Clause AND 0BSD") == "BSD-3-Clause AND 0BSD"
