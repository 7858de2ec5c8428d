"""The command line is told about without what it runs: `--help` answers at once, and a typing error is said before torch is loaded."""

import subprocess
import sys

COMMANDS = (
    "demo", "train", "score", "discover", "attribute", "effects", "tension", "examples", "ablate", "patch", "patch-models", "lens",
    "compare", "repair", "reproduce", "dashboard", "serve",
)  # fmt: skip
HEAVY = ("torch", "transformers", "transformer_lens", "datasets", "scipy", "pandas", "numpy", "pyarrow", "trl", "plotly", "safetensors")
# In a process of its own: this one has them all.
PROGRAM = f"""
import sys
from tl_reward.cli import main

for arguments in [["--help"], *([name, "--help"] for name in {COMMANDS!r}), ["score"], ["no-such-command"]]:
    try:
        main(arguments)
    except SystemExit as ended:
        print("ended", *arguments, ended.code)
print("imported", *(name for name in {HEAVY!r} if name in sys.modules))
"""


def test_help_of_every_command_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    told = [f"ended {' '.join([*name, '--help'])} 0" for name in ([], *([name] for name in COMMANDS))]
    assert [line for line in lines if line.startswith("ended")] == [*told, "ended score 2", "ended no-such-command 2"]
    assert lines[-1].split() == ["imported"]
    assert done.stdout.partition("{")[2].partition("}")[0].split(",") == [*COMMANDS]
