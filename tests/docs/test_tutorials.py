"""The tutorials run from their first cell to their last, here on tiny models; what they show was made with the real ones."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

TESTS = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((TESTS.parent / "docs" / "tutorials").glob("*.ipynb"))
RESET = nbformat.v4.new_code_cell("%reset -f")
# The tutorials' own pairs, but short: a byte is a token here.
SHORT = nbformat.v4.new_code_cell(f"""
import sys
sys.path.append({str(TESTS)!r})
import tl_reward
from helpers.short_pairs import cut_short
from tl_reward.data.readers import load_pairs
tl_reward.load_pairs = lambda source, **of: cut_short(load_pairs(source, **of)) if source == "embedded" else load_pairs(source, **of)
""")


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One for all: it imports torch once."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("MODEL", "SOURCE")):
        tiny_hf_model(seed=seed).save_pretrained(folder / name)
        byte_tokenizer().save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("MODEL", "SOURCE")}


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, kernel: KernelManager, models: dict[str, str], tmp_path: Path):
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += "\n" + "\n".join(f"{name} = {where!r}" for name, where in models.items() if name in parameters.source)
    notebook.cells.insert(0, RESET.copy())
    notebook.cells.insert(1, nbformat.v4.new_code_cell(f"import os\nos.chdir({str(tmp_path)!r})"))
    notebook.cells.insert(2, SHORT.copy())
    client = NotebookClient(notebook, km=kernel, timeout=300)
    client.execute()
    cells = code_cells(notebook)
    assert [cell.execution_count is not None for cell in cells] == [True] * len(cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert cells[-1].source.splitlines()[-1].startswith("assert ")  # each ends with what has to hold of any model


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_what_a_tutorial_shows_is_of_one_whole_run(path: Path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs and {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    text = json.dumps(outputs)
    assert len(text) < 200_000 and not re.search(r"/(tmp|home|work|root|Users)/", text)
    assert not [output for output in outputs if output.get("name") == "stderr"]
