"""One process that has imported what the package needs, but nothing of the package, and forks a child for each script that it is told to
run: a script then costs a second or two in place of nine.

`Scripts` is for the tests; the rest runs in that process, which reads a command a line, as JSON, and answers with its exit status.
"""

import json
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """How a script ended: exit status (of one that a signal killed, minus its number), and what it printed."""

    status: int
    out: str
    err: str


class Scripts:
    def __init__(self, root: Path) -> None:
        self.root = root
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )

    def run(self, script: Path, *args: str | Path) -> Ended:
        """Runs `python SCRIPT ARGS`."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(script), *map(str, args)]) + "\n")
        self.process.stdin.flush()
        status = json.loads(self.process.stdout.readline())
        return Ended(status, *((self.root / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)


def _child(command: list[str]) -> int:
    for name, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = command
    sys.path[0] = os.path.dirname(command[0])
    status = 0
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _serve() -> None:
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import pandas  # noqa: F401
    import peft  # noqa: F401
    import plotly.graph_objects  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformer_lens  # noqa: F401
    from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification, Trainer  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(_child(json.loads(line)))
        _, waited = os.waitpid(pid, 0)
        print(json.dumps(os.waitstatus_to_exitcode(waited)), flush=True)


if __name__ == "__main__":
    _serve()
