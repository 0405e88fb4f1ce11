"""The documentation holds what it shows: code that stands in the source, figures that are counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_resnet.calibration.quantize import REFINEMENTS
from edge_resnet.models import ARCHITECTURES, measure

DOCS = Path(__file__).resolve().parents[1] / "docs"
SOURCE = Path(__file__).resolve().parents[1] / "edge_resnet" / "models" / "resnet.py"


def test_the_code_beside_the_explanation_is_the_source() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "resnet.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 3
    for block in blocks:
        assert block in SOURCE.read_text(encoding="utf-8"), block


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    """Rows of the first table with parameters and GMAC in docs/models.md; several names may share one."""
    text = (DOCS / "models.md").read_text(encoding="utf-8").partition("| name | elsewhere | parameters | GMAC |")[2]
    lines = text.strip().splitlines()[1:]
    table = lines[: lines.index("")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_architecture_is_in_the_table_with_its_size(rows: list[list[str]]) -> None:
    shown = {}
    for names, _, parameters, gmac in rows:
        values = zip(names.split(", "), parameters.split(" · "), gmac.split(" · "), strict=True)
        shown |= {name.strip("`"): (count, macs) for name, count, macs in values}
    sizes = [measure(architecture) for architecture in ARCHITECTURES.values()]
    assert shown == {size.name: (f"{size.parameters:,}", f"{size.gmac:.3f}") for size in sizes}


def test_links_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_steps_of_int8_that_have_names_are_the_refinements() -> None:
    named = re.findall(r"^\| `([a-z-]+)` \|", (DOCS / "int8.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert named == list(REFINEMENTS)
