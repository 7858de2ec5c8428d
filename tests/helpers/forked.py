"""One process that imports torch once, and forks a child for each command that it is told to run: each then costs less than a second, and
can be killed, or run with little disk, without harm to the tests.

`Forks` is for the tests; the rest runs in that process, which reads jobs from standard input, a line of JSON each, and answers with a line.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ESCAPED = 99  # the exit status of a child out of whose command an exception came that is no SystemExit
_WRITES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


class Ended(NamedTuple):
    """How a command ended: exit status (of one that a signal killed, minus its number), how often it wrote, seconds, what it printed."""

    status: int
    writes: int
    seconds: float
    out: str
    err: str


class Forks:
    def __init__(self, root: Path) -> None:
        self.root = root
        own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, str(root)]
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ | own | {"PYTHONPATH": path}
        )

    def run(
        self,
        *args: str | Path,
        signal: int = 0,
        at: int | None = None,
        after: float | None = None,
        largest: int | None = None,
        leaves: bool = False,
        **variables: str,
    ) -> Ended:
        """Runs `tl-reward ARGS`.

        Args:
            signal: sent to it before its write number `at` (from 1) below the root, or `after` some seconds.
            largest: no file of it may get larger, in bytes, as on a disk that is full.
            leaves: its standard output is a pipe whose reader has left.
            variables: of its environment.
        """
        assert self.process.stdin and self.process.stdout
        job = {"args": list(map(str, args)), "signal": int(signal), "at": at, "after": after, "largest": largest}
        job |= {"leaves": leaves, "variables": variables}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        out, err = ((self.root / f".{name}").read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        return Ended(answer["status"], answer["writes"], answer["seconds"], out, err)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)


def _count_writes(root: str, at: int | None, number: int) -> list[int]:
    count = [0]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, writes = args[0], isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path, writes = (args[0] if args else None), event in _WRITES
        if writes and isinstance(path, str | Path) and str(path).startswith(root):
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    return count


def _child(root: Path, job: dict[str, Any]) -> int:
    import resource
    import signal
    import traceback

    from tl_reward.cli import main

    for name, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(root / f".{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if job["leaves"]:
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(reading)
        os.close(writing)
    os.environ.update(job["variables"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job["largest"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], job["largest"]))
    count = _count_writes(str(root / "runs"), job["at"], job["signal"])
    try:
        status = main(job["args"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = ESCAPED
    sys.stdout.flush()
    sys.stderr.flush()
    Path(root / ".count").write_text(str(count[0]))
    return status


def _serve(root: Path) -> None:
    import torch

    torch.set_num_threads(1)
    # What commands import in their `run`, so that no child has to.
    import tl_reward.analyses.ablation_curves
    import tl_reward.analyses.attribution
    import tl_reward.model.training.trainer
    import tl_reward.results.record_examples
    import tl_reward.show.page
    import tl_reward.study.report.runner  # noqa: F401
    from tl_reward.analyses.examples import passes

    passes.CHUNK = 3  # so that there is something to cut
    for line in sys.stdin:
        job, begin = json.loads(line), time.monotonic()
        (root / ".count").unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            os._exit(_child(root, job))
        if job["after"] is not None:
            time.sleep(job["after"])
            os.kill(pid, job["signal"])  # a child that has ended is there until it is waited for
        _, waited = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(waited)
        counted = (root / ".count").read_text() if (root / ".count").exists() else ""  # empty where it was killed while it wrote that
        count = int(counted or 0)
        print(json.dumps({"status": status, "writes": count, "seconds": time.monotonic() - begin}), flush=True)


def arguments(command: str, root: Path, out: Path) -> Sequence[str | Path]:
    """A command of each kind on the tiny model of `make_root`, for a run at `out`."""
    run = ["--limit", "6", "--device", "cpu", "--out", out]
    ranked = ["--ranking", root / "runs" / "whole" / "discover"]
    return {
        "discover": ["discover", root / "model", *run],
        "attribute": ["attribute", root / "model", "--top", "3", "--random", "3", *run],
        "ablate": ["ablate", root / "model", *ranked, "--fractions", "0.1", "--draws", "1", *run],
        "examples": ["examples", root / "model", "--neurons", "0.3", "1.7", *run],
        "train": [
            "train", "--base", root / "model", "--limit", "8", "--epochs", "2", "--batch-size", "4", "--max-length", "2000",
            "--learning-rate", "0.01", "--save-every", "1", "--out", out,
        ],
        "dashboard": ["dashboard", root / "runs" / "whole" / "discover", "--out", out.with_name(f"{out.name}.html"), "--overwrite"],
        "reproduce": ["reproduce", "--config", root / "study.toml", "--out", out],
    }[command]  # fmt: skip


STUDY = """
objectives = ["helpful"]
seeds = [0]
rankings = ["mean"]
fractions = [0.1]
draws = 0
dtype = "float32"
training = {{ max_pairs = 4, batch_size = 4, max_length = 2000, learning_rate = 0.01, save_every = 1 }}
limits = {{ rows = 2, discovery = 2 }}
bases = [{{ name = "tiny", source = "{base}" }}]
data.helpful = {{ train = ["embedded"], test = ["embedded"] }}
"""


def make_root(root: Path) -> Path:
    from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

    tiny_hf_model().save_pretrained(root / "model")
    byte_tokenizer().save_pretrained(root / "model")
    (root / "study.toml").write_text(STUDY.format(base=root / "model"), encoding="utf-8")
    return root


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
