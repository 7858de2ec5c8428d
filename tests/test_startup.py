"""What the command line needs for `--help` is imported without the packages that take seconds."""

import subprocess
import sys

import pytest

SLOW = ("torch", "transformers", "datasets", "scipy", "pandas")
LIGHT = (
    "tl_reward",
    "tl_reward.errors",
    "tl_reward.parallel",
    "tl_reward.sites",
    "tl_reward.data.pairs",
    "tl_reward.data.readers",
    "tl_reward.model.embedded",
    "tl_reward.model.training.config",
    "tl_reward.model.training.record",
)


def run(script: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_imports_nothing_slow(module: str):
    assert run(f"import sys, {module}; print(*[name for name in {SLOW} if name in sys.modules])") == []


def test_the_training_config_comes_without_the_training():
    assert run(f"import sys, tl_reward; tl_reward.TrainingConfig; print(*[name for name in {SLOW} if name in sys.modules])") == []


def test_wandb_is_not_imported():
    """It leaves folders in the temporary directory. TRL would import it where it is installed."""
    pytest.importorskip("trl")
    script = "import sys, tl_reward.model.reward_model; from tl_reward.model.training import trainer; print('wandb' in sys.modules)"
    assert run(script) == ["False"]


def test_one_process_is_counted_without_torch():
    script = "import sys; from tl_reward import parallel; print(parallel.count(), parallel.is_first(), 'torch' in sys.modules)"
    assert run(script) == ["1", "True", "False"]
