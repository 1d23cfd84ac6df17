"""The notebooks of examples/ run from their first cell to their last, and none is committed with outputs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICK = {
    "steps, items = 100, 60": "steps, items = 2, 4",
    r"datasets = .*": 'datasets = ["fashion_naming", "digits_naming"]',
}
"""Settings that take seconds."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 3
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own libraries
def test_the_notebook_goes_from_the_import_to_a_2x2_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent), prepend=os.pathsep)
    notebook = nbformat.read(FOLDER / "forgetting.ipynb", as_version=4)
    for pattern, quick in QUICK.items():
        found = [cell for cell in notebook.cells if cell.cell_type == "code" and re.search(pattern, cell.source)]
        assert len(found) == 1
        found[0].source = re.sub(pattern, quick, found[0].source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    [shown] = [one.data["text/html"] for one in outputs["score"] if one.output_type == "execute_result"]
    assert ">ID image<" in shown
    assert ">OOD text<" in shown
    assert {one.name for one in outputs["train"] if one.output_type == "stream"} == {"stderr"}
    [link] = [one.data["text/html"] for one in outputs["report"] if one.output_type == "execute_result"]
    assert 'href="outputs/notebook/report.html"' in link
    assert (tmp_path / "outputs/notebook/report.html").is_file()
