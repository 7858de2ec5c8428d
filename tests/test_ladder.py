"""The package's own order: who imports whom, and how long a file is. Read from the source, without running it."""

import ast
from pathlib import Path

import pytest

import tl_reward

PACKAGE = Path(tl_reward.__file__).parent
LEVELS = {
    name: level
    for level, names in enumerate(
        [
            "errors",
            "guard pairs parallel sites zoo architectures layers",
            "readers checkpoints scores results tokens statistics contrast entropy overlap",
            "packing agreement rankings",
            "alignment attention interventions",
            "model custom",
            "budget training tiny",
            "run",
            "streaming patching weights",
            "discovery attribution direct ablation effects lens path_patching example_passes",
            "methods pair_patching model_patching live examples",
            "tension",
            "record columns",
            "patch_record example_record plots",
            "summary dashboard",
            "demo serve options",
            "study",
            "commands patch_commands serve_commands example_commands study_commands",
            "cli tl_reward",
        ]
    )
    for name in names.split()
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [*TREES]


def part_of(module: str) -> str:
    """The file or folder right under the package that holds a module; the package itself for its `__init__`."""
    return module.split(".")[1] if "." in module else module


def imports(module: str) -> set[str]:
    """The full names that a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute, so that they can be searched for"
            # `from tl_reward import plots` imports a module, `from tl_reward.plots import f` a name out of one.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in TREES else str(node.module) for name in names}
    return found


def own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "tl_reward"}


def reached(module: str) -> set[str]:
    """All of the package that a module imports, at whatever remove. Leaves out what `tl_reward/__init__.py` imports for its users."""
    seen: set[str] = set()
    ahead = {module}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= (own_imports(name) - {"tl_reward"}) - seen
    return seen - {module}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_the_ladder(module: str):
    mine = part_of(module)
    assert mine in LEVELS, f"{module} has no level yet"
    wrong = {name for name in own_imports(module) if part_of(name) != mine and LEVELS[part_of(name)] >= LEVELS[mine]}
    assert wrong == set()


def test_every_level_names_a_file():
    assert set(LEVELS) == {part_of(module) for module in MODULES}


def test_the_source_is_read():
    # Guards the tests of this file: they pass where nothing is found.
    assert {"tl_reward.columns", "tl_reward.results"} <= own_imports("tl_reward.dashboard.page")
    assert {"tl_reward.checkpoints", "tl_reward.architectures", "transformer_lens"} <= imports("tl_reward.model")
    assert "tl_reward.demo" in own_imports("tl_reward.cli")  # inside a function
    assert {"tl_reward.errors", "tl_reward.pairs"} <= reached("tl_reward.plots")


def test_only_the_model_imports_transformer_lens():
    assert [m for m in MODULES if any(name.split(".")[0] == "transformer_lens" for name in imports(m))] == ["tl_reward.model"]


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) in ("plots", "dashboard")])
def test_plots_and_pages_reach_no_model(module: str):
    assert reached(module) & {"tl_reward.model", "tl_reward.run", "tl_reward.training"} == set()


@pytest.mark.parametrize("module", MODULES)
def test_files_are_short(module: str):
    path = PACKAGE.parent.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 380


def test_public_names():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {alias.asname or alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    listed = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert listed == sorted(imported) == sorted(tl_reward.__all__)
    assert [name for name in listed if getattr(tl_reward, name, None) is None] == []


def test_public_names_hide_no_file():
    # `tl_reward.overlap` would be a function or a module, by what was imported first.
    assert set(tl_reward.__all__) & {part_of(module) for module in MODULES} == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle(module: str):
    assert {name for name in imports(module) if name.split(".")[0] in ("pickle", "_pickle", "cloudpickle", "dill", "joblib")} == set()
    used = {ast.unparse(node) for node in ast.walk(TREES[module]) if isinstance(node, ast.Attribute)}
    taken = {f"{node.module}.{alias.name}" for node in ast.walk(TREES[module]) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert (used | taken) & {"torch.load", "torch.save"} == set()
