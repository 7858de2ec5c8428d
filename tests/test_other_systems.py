"""The package on a system that is not Linux, as far as that can be seen on Linux."""

import subprocess
import sys

import pytest

from tl_reward.study.report import runner

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules["fcntl"] = None  # as on Windows: importing it raises ImportError
import tl_reward
names = [found.name for found in pkgutil.walk_packages(tl_reward.__path__, "tl_reward.") if not found.name.endswith("__main__")]
assert "tl_reward.study.report.runner" in names
for name in names:
    importlib.import_module(name)
"""


def test_every_module_is_imported_without_fcntl():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_locked_is_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.warns(UserWarning, match="this system cannot lock the folder"), runner._alone(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()
