"""Runs the tutorials from their first cell to their last, and keeps what they show: `make notebooks`, or with the paths of some.

Each runs in an empty folder. Of what it shows, that folder's path and what goes to standard error (progress bars) are left out.
"""

import json
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": folder}}, timeout=3600).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times
            if cell.cell_type == "code":
                shown = [output for output in cell.outputs if output.get("name") != "stderr"]
                cell.outputs = [nbformat.from_dict(json.loads(json.dumps(output).replace(f"{folder}/", ""))) for output in shown]
    return notebook


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(TUTORIALS.glob("*.ipynb")):
        print(path.name, flush=True)
        nbformat.write(executed(path), path)
