"""The command's version, and the command as a module."""

import os
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import tl_reward
from tl_reward.cli import main

PACKAGE = Path(tl_reward.__file__).parent
ROOT = PACKAGE.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


def test_the_version_is_that_of_pyproject(capsys):
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tl-reward {told}\n"


def test_a_folder_that_is_not_installed_says_so(capsys, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("tl_reward.cli.entry.version", version)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "tl-reward of a folder that is not installed\n"


def test_the_module_is_the_command():
    program = "import sys; from tl_reward.cli import main; sys.exit(main(sys.argv[1:]))"
    for arguments in (["--version"], ["scroe"]):
        module, command = run("-m", "tl_reward", *arguments), run("-c", program, *arguments)
        assert (module.returncode, module.stdout, module.stderr) == (command.returncode, command.stdout, command.stderr)
    assert "--version" in run("-m", "tl_reward", "--help").stdout


def test_a_run_names_the_command_that_made_it():
    script = "import runpy, sys; sys.argv = ['x/__main__.py', '--version']\ntry: runpy.run_module('tl_reward', run_name='__main__')\n"
    script += "finally: print(sys.argv[0])"
    assert run("-c", script).stdout.splitlines()[-1] == "tl-reward"


def test_types_travel_with_the_package():
    """A type checker reads the public names from `__init__.pyi`, of a package that says by `py.typed` that it has types."""
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]["tl_reward"]
    for name in ("py.typed", "__init__.pyi"):
        assert (PACKAGE / name).is_file() and any(fnmatch(name, glob) for glob in globs), name
