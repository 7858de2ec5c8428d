"""The package's own order: which folder imports which, how long files and functions are. Read from the source, without running it.

The ladder is not written down: it is what the imports are. Where they have no order, an import runs up, and the test names it.
"""

import ast
import importlib
import re
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import tl_reward

PACKAGE = Path(tl_reward.__file__).parent
ROOT = PACKAGE.parent
MOST_FILES, MOST_LINES, MOST_LINES_OF_CODE = 10, 350, 60
# Functions of more lines of code, and why.
LONG: dict[str, str] = {}
# Names that scripts know: each imports, for them, from where the thing is made. Nothing in the package imports these.
DOORS = ("tl_reward", "tl_reward.__main__", "tl_reward.plots", "tl_reward.dashboard")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [*PATHS]
FOLDERS = sorted({path.parent for path in PATHS.values()})


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(PATHS[module].read_text(encoding="utf-8"))


def folder_of(module: str) -> str:
    """The folder right under the package that holds a module; "root" for the files that stand there."""
    parts = PATHS[module].relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "root"


def imports(module: str) -> set[str]:
    """The full names that a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute, so that they can be searched for"
            # `from tl_reward.show import plots` imports a module, `from tl_reward.show.plots import f` a name out of one.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in PATHS else str(node.module) for name in names}
    return found


def own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name in PATHS}


def reached(module: str) -> set[str]:
    """All of the package that a module imports, at whatever remove."""
    seen: set[str] = set()
    ahead = {module}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= own_imports(name) - seen
    return seen - {module}


def folder_imports() -> dict[str, dict[str, set[str]]]:
    """folder → folder that it imports → the imports, as "importer imports imported"."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for module in [module for module in MODULES if module not in DOORS]:
        found.setdefault(folder_of(module), defaultdict(set))
        for name in own_imports(module):
            if folder_of(name) != folder_of(module):
                found[folder_of(module)][folder_of(name)].add(f"{module} imports {name}")
    return found


def order(graph: dict[str, set[str]], said: dict[str, dict[str, set[str]]] | None = None) -> list[str]:
    """Lowest first. Where there is no order, fails and names the imports of the circle."""
    try:
        return [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        circle = error.args[1]
        lines = [", ".join(sorted(said[a][b])[:3]) if said else f"{a} imports {b}" for b, a in pairwise(circle)]
        pytest.fail("imports run in a circle: " + "; ".join(lines))


def test_folders_stand_on_a_ladder():
    found = folder_imports()
    ladder = order({folder: set(below) for folder, below in found.items()}, found)
    assert ladder[0] == "root" and ladder[-1] == "cli" and set(ladder) == {folder_of(module) for module in MODULES}


@pytest.mark.parametrize("folder", [folder.relative_to(ROOT).as_posix() for folder in FOLDERS])
def test_files_of_a_folder_stand_on_a_ladder(folder: str):
    # Folders within it count as one each, as they do for a reader.
    prefix = folder.replace("/", ".")
    inside = {name: name.removeprefix(prefix).split(".")[1] for name in MODULES if name.startswith(f"{prefix}.") and name not in DOORS}
    graph: dict[str, set[str]] = defaultdict(set)
    for name, part in inside.items():
        graph[part] |= {inside[other] for other in own_imports(name) if other in inside} - {part}
    if folder == "tl_reward":  # the ladder of folders, above, and the files at its foot
        graph = {part: below for part, below in graph.items() if not (PACKAGE / part).is_dir()}
    order(graph)


def test_the_picture_in_contributing_is_the_ladder():
    """Its arrows, with what follows from them, are the imports between folders: none is missing, and none is made up."""
    picture = re.search(r"```mermaid\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)
    assert picture is not None
    arrows: dict[str, set[str]] = defaultdict(set)
    for above, below in re.findall(r"^\s*(\w+)\s*-->\s*(\w+)", picture[1], re.M):
        arrows[above].add(below)
    found = {folder: set(below) for folder, below in folder_imports().items()}
    drawn = {folder: closure(arrows, folder) for folder in found}
    for folder, below in arrows.items():
        assert below <= found[folder], f"the picture has an arrow from {folder} to {below - found[folder]}, which no import is"
    for folder, below in found.items():
        assert below <= drawn[folder], f"{folder} imports {below - drawn[folder]}, which the picture does not show"


def closure(arrows: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = set(arrows[start])
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= arrows[name] - seen
    return seen


def test_the_source_is_read():
    # Guards the tests of this file: they pass where nothing is found.
    assert {"tl_reward.show.neuron_columns", "tl_reward.results.store"} <= own_imports("tl_reward.show.page.document")
    assert {"tl_reward.errors", "huggingface_hub"} <= imports("tl_reward.model.checkpoints.folders")
    assert "tl_reward.cli.demo" in own_imports("tl_reward.cli.entry")  # inside a function
    assert {"tl_reward.errors", "tl_reward.sites"} <= reached("tl_reward.show.plots")


def test_one_file_imports_transformer_lens():
    users = [module for module in MODULES if any(name.split(".")[0] == "transformer_lens" for name in imports(module))]
    assert users == ["tl_reward.model.components"]


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(("tl_reward.show.plots", "tl_reward.show.page"))])
def test_plots_and_pages_reach_no_model(module: str):
    assert {name for name in reached(module) if folder_of(name) in ("model", "running")} == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_folders_are_small(folder: Path):
    assert len([*folder.glob("*.py")]) <= MOST_FILES


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short(module: str):
    assert len(PATHS[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str):
    """Lines of code: a docstring, comments and blank lines do not count."""
    lines = PATHS[module].read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{module}.{node.name}"
            assert (lines_of_code(node, lines) > MOST_LINES_OF_CODE) == (name in LONG), name


def lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
    code = lines[node.lineno - 1 : node.body[0].lineno - 1] + lines[first.lineno - 1 : node.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in code)


def test_public_names():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {alias.asname or alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    listed = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert listed == sorted(imported) == sorted(tl_reward.__all__)
    assert [name for name in listed if getattr(tl_reward, name, None) is None] == []


def test_public_names_hide_no_file():
    # `tl_reward.overlap` would be a function or a module, by what was imported first.
    for folder in FOLDERS:
        exported = set(getattr(importlib.import_module(name_of(folder / "__init__.py")), "__all__", ()))
        assert exported & {path.stem for path in folder.iterdir() if path.is_dir() or path.suffix == ".py"} == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle(module: str):
    assert {name for name in imports(module) if name.split(".")[0] in ("pickle", "_pickle", "cloudpickle", "dill", "joblib")} == set()
    used = {ast.unparse(node) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)}
    taken = {
        f"{node.module}.{alias.name}" for node in ast.walk(tree_of(module)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert (used | taken) & {"torch.load", "torch.save"} == set()
