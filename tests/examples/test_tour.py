"""The notebook runs from top to bottom, shows what its words say, and is stored as it was written."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edge_resnet import demo

TOUR = Path(__file__).resolve().parents[2] / "examples" / "tour.ipynb"


@pytest.fixture(scope="module")
def written() -> Any:
    nbformat = pytest.importorskip("nbformat", reason="the notebook runs with the extra 'dev'")
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_it_holds_no_outputs(written: Any) -> None:
    """They would be stale with the first change of the code, and a change of the notebook could not be read."""
    for cell in written.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_its_links_lead_somewhere(written: Any) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", "\n".join(cell.source for cell in written.cells))
    assert len(links) > 2
    for target in links:
        assert (TOUR.parent / target).exists(), target


def test_it_runs_and_shows_what_it_says(written: Any, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the notebook runs with the extra 'dev'")
    nbclient.NotebookClient(written, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in written.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "model.qdq.onnx" in text and "drop " in text
    agreement, sqnr = re.findall(r"agreement with FP32 ([\d.]+)%, logit SQNR ([\d.]+) dB", text)[0]
    assert float(agreement) > 98 and float(sqnr) > 30
    answers = re.findall(r"^([✓✗]) (\S+) +→ (\S+) +[\d.]+%$", text, re.MULTILINE)
    assert [truth for _, truth, _ in answers] == sorted(folder.name for folder in demo.TEST.iterdir())
    assert sum(mark == "✓" for mark, *_ in answers) >= 8
    (picture,) = (output.data["image/png"] for output in outputs if "image/png" in output.get("data", {}))
    assert Image.open(io.BytesIO(b64decode(picture))).width == 1440
    assert [output for output in outputs if output.get("name") == "stderr"] == []
