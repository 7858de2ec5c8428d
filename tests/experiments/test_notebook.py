"""The notebook runs from its first cell to its last, and shows its figures."""

from pathlib import Path

import nbformat
from helpers.page_runs import tiny_run
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "experiments" / "explore.ipynb"


def test_the_notebook_runs_and_shows_its_figures(tmp_path):
    tiny_run().save(tmp_path / "runs" / "demo")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}, timeout=300).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output for cell in code for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    figures = [output for output in shown if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert len(figures) == sum(cell.source.splitlines()[-1].startswith("shown(lambda: plots.") for cell in code) == 6
    assert any("20 neurons in" in output.get("data", {}).get("text/html", "") for output in shown)


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs] == []
