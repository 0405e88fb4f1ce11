"""The documentation holds what it shows: code that stands in the source, figures that are counted."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from edge_resnet.calibration.quantize import REFINEMENTS
from edge_resnet.engines.targets import all_targets
from edge_resnet.limits import Limits
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


def test_every_line_of_the_threats_has_its_test() -> None:
    text = (DOCS / "threats.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", text))
    assert len(named) > 40
    for file, test in named:
        source = (DOCS.parent / "tests" / file).read_text(encoding="utf-8")
        assert f"def {test}(" in source, f"{file}::{test}"
    lines = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| attempt", "| limit"))
    ]
    assert [line for line in lines if "::test_" not in line] == []


def test_the_limits_are_those_of_the_source() -> None:
    text = (DOCS / "threats.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    assert {name: int(value) for name, value in shown} == asdict(Limits())


def test_every_command_for_a_jetson_is_one_that_exists(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """With an unknown option added, that one is what is complained of."""
    text = (DOCS / "jetson.md").read_text(encoding="utf-8")
    commands = re.findall(r"edge-resnet ((?:compile|check|devices|export-)[^'`&]*?)(?=['`]| &&|\n +[a-z]|\n\n)", text)
    assert len(commands) > 6
    for command in commands:
        result = cli(*shlex.split(command), "--bogus")
        assert (result.returncode, "No such option: --bogus" in result.stderr) == (2, True), (
            f"{command}: {result.stderr}"
        )


@pytest.mark.parametrize("page", ["tutorial", "precision", "accuracy", "faq"])
def test_every_command_on_the_guides_is_one_that_exists(
    page: str, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As above, and with options that exist."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    edge-resnet (.+)$", text, re.MULTILINE)
    assert len(commands) > 3
    for command in commands:
        result = cli(*shlex.split(command), "--bogus")
        assert (result.returncode, "No such option: --bogus" in result.stderr) == (2, True), (
            f"{command}: {result.stderr}"
        )


def test_every_question_is_answered_by_a_command() -> None:
    questions = (DOCS / "faq.md").read_text(encoding="utf-8").split("\n### ")[1:]
    assert len(questions) == 20
    assert [each for each in questions if "\n    edge-resnet " not in each] == []


def test_the_table_of_jetpacks_is_that_of_the_device_files() -> None:
    text = (DOCS / "jetson.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\d[^|]*) \| [^|]* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([^|]*) \|", text, re.MULTILINE)
    shown = {
        (tensorrt, cuda, python, device)
        for _, tensorrt, cuda, python, devices in lines
        for device in devices.split(", ")
    }
    family = re.compile("Orin|Thor|Xavier")
    assert shown == {
        (release.tensorrt, release.cuda, release.python, family.findall(target.description)[0])
        for target in all_targets().values()
        for release in target.jetpacks
    }
