"""Guards that keep numbers right and runs whole: with one of them taken out, the test named beside it fails.

The short form checks that each guard stands where the list says; the long one (`make attack`) takes them out of a copy, one at a time.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.attack import LONG
from helpers.guards import GUARDS as GUARDS_OF_RUNS
from helpers.guards import Guard
from helpers.guards_of_input import GUARDS_OF_INPUT
from helpers.guards_of_repair import GUARDS_OF_REPAIR

ROOT = Path(__file__).parents[2]
GUARDS = (*GUARDS_OF_RUNS, *GUARDS_OF_INPUT, *GUARDS_OF_REPAIR)


def test_there_are_twenty():
    assert len(GUARDS) >= 20
    assert len({(guard.file, guard.code) for guard in GUARDS}) == len(GUARDS)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.promise)
def test_the_guard_and_its_test_are_there(guard: Guard):
    source = (ROOT / guard.file).read_text(encoding="utf-8")
    assert source.count(guard.code) == 1, f"{guard.file} holds {guard.code!r} {source.count(guard.code)} times"
    file, _, name = guard.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.skipif(not LONG, reason="takes a guard out and runs its test, a Python for each: make attack")
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.promise)
def test_without_the_guard_its_test_fails(guard: Guard, tmp_path: Path):
    for folder in ("tl_reward", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", guard.test]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    path = tmp_path / guard.file
    path.write_text(path.read_text(encoding="utf-8").replace(guard.code, guard.instead), encoding="utf-8")
    # With it, the test passes: that is what the rest of the suite says.
    without = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert without.returncode == 1, f"the test still passes, or does not run:\n{without.stdout[-2000:]}"
