"""How a command ends: stopped in one line, in a pipe that closes, on a terminal of few signs. Nothing heavy is imported here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STOP = "from tl_reward.cli.program import as_program\nimport signal, sys, time\n"
# A program that a shell starts in the background ignores Ctrl-C.
STOP += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
BODIES = {
    "in a loop": "with as_program('tl-reward'):\n    print('ready', flush=True)\n    while True: time.sleep(0.01)",
    # A package that catches everything while it is imported, as some do.
    "in an import": "with as_program('tl-reward'):\n    import catches\n    time.sleep(30)",
    # Python prints a traceback there, and goes on.
    "where nothing is raised": (
        "class Slow:\n    def __del__(self):\n        print('ready', flush=True)\n        time.sleep(30)\n"
        "with as_program('tl-reward'):\n    slow = Slow()\n    del slow\n    time.sleep(30)"
    ),
    "in a clean-up": (
        "with as_program('tl-reward'):\n    try:\n        print('ready', flush=True)\n        time.sleep(30)\n"
        "    finally:\n        raise RuntimeError('half done')"
    ),
}
CATCHES = "import time\nprint('ready', flush=True)\ntry:\n    time.sleep(30)\nexcept BaseException:\n    pass\ntime.sleep(30)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("place", BODIES)
def test_stopped(place: str, number: signal.Signals, tmp_path: Path):
    (tmp_path / "catches.py").write_text(CATCHES)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    program = subprocess.Popen(
        [sys.executable, "-c", STOP + BODIES[place]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert program.stdout is not None and program.stdout.readline() == "ready\n"
    time.sleep(0.05)
    program.send_signal(number)
    _, said = program.communicate(timeout=20)
    ends = {signal.SIGINT: (130, "tl-reward: stopped\n"), signal.SIGTERM: (143, "tl-reward: stopped (terminated)\n")}
    assert (program.returncode, said) == ends[number]


def test_handlers_are_given_back():
    from tl_reward.cli.program import as_program

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook

    def stopped() -> None:
        with as_program("tl-reward"):
            assert signal.getsignal(signal.SIGINT) != before
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        stopped()
    assert ended.value.code == 130
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == (before, hook)


def run(*arguments: str, encoding: str = "utf-8", **environment: str) -> subprocess.CompletedProcess[bytes]:
    script = "import sys; from tl_reward.cli import main; sys.exit(main(sys.argv[1:]))"
    variables = os.environ | {"PYTHONIOENCODING": encoding} | environment
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, env=variables)


def test_a_terminal_of_few_signs():
    done = run("score", "--help", encoding="ascii", COLUMNS="60")
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.decode("ascii").splitlines()[0].startswith("usage: tl-reward score")
    done = run("scoré–\udcff", encoding="ascii", LC_ALL="C")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.decode("ascii").startswith("tl-reward: no command 'scor")


def test_a_pipe_has_no_control_codes():
    done = run("score", "--help")
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX's")
def test_a_reader_who_leaves():
    script = (
        "import sys, time\nfrom tl_reward.cli.program import as_program\n"
        "with as_program('tl-reward'):\n    time.sleep(0.3)\n    print('x' * 100_000)\n    print('y')"
    )
    reading, writing = os.pipe()
    program = subprocess.Popen([sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.close(reading)
    _, said = program.communicate(timeout=20)
    assert (program.returncode, said) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dicsover", "helpful"], "no command 'dicsover'; did you mean discover? (tl-reward --help lists them)"),
        (["score", "helpful", "--max-lenght", "5"], "score has no option --max-lenght; did you mean --max-length? ("),
        (["score", "helpful"], "Missing from tl-reward score: --out PATH"),
        (["compare", "a", "--site", "x", "--out", "b"], "invalid choice 'x' for argument '--site'"),
        (["discover", "m", "--out", "x", "--sites"], "--sites needs at least one value"),
        (["score", "m", "--out", "x", "--max-memory-gb", "nan"], "--max-memory-gb must be a finite number above 0, got nan"),
        (["attribute", "m", "--out", "x", "--seed", "-1"], "seed must be in [0, 9223372036854775807], got -1"),
        (["ablate", "m", "--ranking", "r", "--out", "x", "--fractions", "0.1", "0.1"], "fractions must differ, got 0.1 twice"),
    ],
)
def test_refused_in_one_line_before_anything_heavy_is_imported(arguments: list[str], says: str):
    script = (
        "import sys; from tl_reward.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    print(ended.code, *({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.stdout == "2\n"
    assert done.stderr.startswith(f"tl-reward: {says}") and len(done.stderr.splitlines()) == 1


def test_a_warning_is_one_line_without_its_source():
    script = (
        "import sys, warnings\nfrom tl_reward.cli.program import as_program\nbefore = warnings.showwarning\n"
        "with as_program('tl-reward'):\n    warnings.warn('rows left out\\n  give max_length, or template=…')\n"
        "    warnings.warn('of a library', FutureWarning)\n    warnings.warn('of its insides', PendingDeprecationWarning)\n"
        "    with warnings.catch_warnings():\n        warnings.simplefilter('always')\n        warnings.warn('again')\n"
        "assert warnings.showwarning is before"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == ""
    assert done.stderr == "warning: rows left out give --max-length, or --template …\nwarning: of a library\nwarning: again\n"
