"""The package on a system that is not Linux, as far as that can be seen on Linux."""

import subprocess
import sys
import warnings

import filelock
import pytest

from tl_reward.errors import InputError
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.study.report import runner

# What Windows has not: modules, functions, signals, files. Others' packages ask at their import which system they are on; so what they look
# at goes once they are imported.
WITHOUT = """
import builtins, importlib, os, pathlib, pkgutil, signal, sys
sys.modules["fcntl"] = None  # importing it raises ImportError
import datasets, filelock, peft, platformdirs, plotly.utils, psutil, pydantic, rich.console
import scipy.stats, torch, transformer_lens, transformers, trl, tyro
for name in ("resource", "pwd", "grp", "termios", "pty", "tty", "syslog"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "killpg", "getpgid", "setsid", "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "getgid",
             "getloadavg", "sysconf", "wait3", "wait4", "mkfifo", "chown", "lchown", "nice", "uname"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "alarm", "setitimer",
             "pthread_sigmask"):
    delattr(signal, name)
opened = builtins.open

def blocked(file, *args, **kwargs):
    if str(file).startswith("/sys/"):
        raise FileNotFoundError(2, "no such file", str(file))
    return opened(file, *args, **kwargs)

builtins.open = pathlib.io.open = blocked
os.environ["PATH"] = ""

import tl_reward
names = [found.name for found in pkgutil.walk_packages(tl_reward.__path__, "tl_reward.") if not found.name.endswith("__main__")]
assert "tl_reward.study.report.runner" in names
for name in names:
    importlib.import_module(name)

from tl_reward.cli import main
pairs = ["--limit", "4", "--device", "cpu"]
assert main(["score", "model", *pairs, "--out", "runs/scores"]) == 0
assert main(["discover", "model", *pairs, "--out", "runs/found"]) == 0
assert main(["dashboard", "runs/found", "--out", "page.html"]) == 0
assert main(["dashboard", "runs/found", "--out", "page.html", "--overwrite"]) == 0
assert main(["discover", "model", *pairs, "--out", "runs/found", "--overwrite"]) == 0
"""


def test_it_scores_discovers_and_writes_its_page_without_what_windows_lacks(tmp_path):
    tiny_hf_model().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "page.html").stat().st_size > 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "page.html", "runs"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["found", "scores"]


def test_two_reproductions_do_not_run_in_one_folder(tmp_path):
    with runner._alone(tmp_path), pytest.raises(InputError, match="another reproduction is at work there"), runner._alone(tmp_path):
        pass
    with warnings.catch_warnings(action="error"), runner._alone(tmp_path):  # the first one is gone
        pass


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError("no flock")])
def test_a_folder_that_cannot_be_locked_is_said_to_be_so(tmp_path, monkeypatch, error):
    def without_locks(self):
        raise error

    monkeypatch.setattr(filelock.FileLock, "_acquire", without_locks)
    with pytest.warns(UserWarning, match="the folder cannot be locked"), runner._alone(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()
