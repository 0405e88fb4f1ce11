"""The index of the examples names each, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("folder", [EXAMPLES, EXAMPLES / "ros2"])
def test_every_example_is_in_its_index(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    for path in (*folder.glob("*.py"), *folder.glob("*.ipynb")):
        assert path.name in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (folder / target).exists(), target
    for command in re.findall(r"python (examples/\S+\.py)", text):
        assert (EXAMPLES.parent / command).exists(), command


def test_every_parameter_of_the_node_is_explained() -> None:
    node = (EXAMPLES / "ros2" / "classifier_node.py").read_text(encoding="utf-8")
    table = node.partition("PARAMETERS = {")[2].partition("}")[0]
    text = (EXAMPLES / "ros2" / "README.md").read_text(encoding="utf-8").partition("## Parameters")[2]
    assert re.findall(r'^    "(\w+)":', table, re.MULTILINE) == re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
