"""The tab key: the script that the parser writes for a shell knows every command, and imports nothing heavy on the way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tl_reward.cli.entry import COMMANDS

SCRIPT = (
    "import sys; from tl_reward.cli import main\ntry:\n    main(sys.argv[1:])\n"
    "finally:\n    assert not {'torch', 'transformers', 'scipy'} & set(sys.modules)"
)
ASK = """
source "$1"
complete -p tl-reward
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
"$(complete -p tl-reward | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As docs/how-to/shell.md says to write it."""
    path = tmp_path_factory.mktemp("completion") / "tl-reward"
    arguments = [sys.executable, "-c", SCRIPT, "--tyro-write-completion", "bash", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_and_options(script: Path):
    def offered(*words: str) -> list[str]:
        done = subprocess.run(["bash", "-c", ASK, "bash", str(script), "tl-reward", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[1:]

    assert {*COMMANDS} <= {*offered("")}
    assert {each.strip() for each in offered("pat")} == {"patch", "patch-models"}
    assert "--quiet" in {each.strip() for each in offered("score", "--qu")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_goes_to_standard_output(shell: str):
    done = subprocess.run([sys.executable, "-c", SCRIPT, "--tyro-print-completion", shell], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in COMMANDS if name not in done.stdout] == []
