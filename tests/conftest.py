"""Which tests are which: marks, and their order. What they ask for by name is in helpers/fixtures.py."""

import gc
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Folders and files that take most of the time. They come first, so that of two processes none is left alone with one of them at the end.
DEAR = ("model/test_embedded_models.py", "experiments", "test_parallel.py", "study", "repairing", "model/test_training.py",
        "model/test_micro_batches.py", "interventions/test_patches.py", "attack", "show")  # fmt: skip
SLOW = (
    *DEAR[:-2], "model/test_head_layouts.py", "model/test_heads.py", "model/test_adapters.py", "model/test_kernels.py", "test_startup.py",
    "test_other_systems.py", "test_result_objects.py", "docs/test_tutorials.py", "docs/test_reference.py", "data/test_sources.py",
    "data/test_pairs.py", "cli/test_program.py", "cli/test_commands.py", "cli/test_output_option.py", "cli/test_repair_command.py",
    "cli/test_completion.py", "bad_input/test_bad_commands.py", "analyses/test_outputs.py", "analyses/test_exact_effects.py",
    "analyses/test_examples.py", "analyses/test_attribution.py", "running/test_waits.py", "running/batches/test_budget.py",
    "running/test_options.py", "running/test_half_precision.py", "results/test_record_models.py", "results/test_record_repair.py",
    "running/test_sweep.py", "running/test_pair_activations.py", "cli/test_pipes.py", "test_cuda.py", "model/test_reward_model.py",
    "model/test_placing.py", "analyses/test_reward_lens.py", "analyses/test_model_patching.py", "measures/test_contrast.py",
    "analyses/test_reading.py", "interventions/test_from_functions.py", "results/test_earlier_runs.py", "test_waivers.py", "test_ladder.py",
    "model/test_origin.py", "model/test_embedded.py", "cli/test_neuron_files.py", "cli/test_model_names.py", "show/test_found.py",
    "show/page/test_lacking.py",
    "show/test_patching_page.py", "show/test_page.py", "show/test_repair_page.py", "show/test_how_made.py", "show/test_server.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist's own process runs no test: it does not wait for torch before it starts those that do."""
    if config.getoption("dist", "no") == "no" or config.getoption("collectonly"):
        config.pluginmanager.register(import_module("helpers.fixtures"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests are left out by their mark, files of nothing else are not even read, which takes seconds too."""
    without = re.fullmatch(r"not \((\w+ or )*slow( or \w+)*\)", config.getoption("markexpr") or "")
    return True if without and _place(collection_path, SLOW) < len(SLOW) else None


def pytest_collection_finish() -> None:
    """What is in memory now stays there: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks, by folder, by fixture and by architecture."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "real_base" in fixtures:
            item.add_marker("real")
        if _place(item.path, ("attack",)) == 0:
            item.add_marker("attack")
        if _place(item.path, SLOW) < len(SLOW) or fixtures & {"forks", "scripts"} or _of_another_architecture(item):
            item.add_marker("slow")
    items.sort(key=lambda item: _place(item.path, DEAR))


@cache
def _place(path: Path, names: tuple[str, ...]) -> int:
    """The index of the first of these that a test's file is, or is in, or how many there are."""
    return next((i for i, name in enumerate(names) if path.is_relative_to(TESTS / name)), len(names))


def _of_another_architecture(item: pytest.Item) -> bool:
    """Of a test of every architecture, the first one is quick enough."""
    from helpers.architectures import PARITY

    values = [value for value in getattr(getattr(item, "callspec", None), "params", {}).values() if isinstance(value, str)]
    return any(value in PARITY and value != next(iter(PARITY)) for value in values)
