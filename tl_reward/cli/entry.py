"""Open up reward models: score preference pairs, find neurons, ablate them, and see the result on one page."""

import io
import itertools
import os
import re
import shlex
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, cast, get_type_hints, runtime_checkable

import tyro
from tyro.extras import subcommand_cli_from_dict

from tl_reward.arguments import check_range, in_words
from tl_reward.cli.examples import ExamplesCommand
from tl_reward.cli.neurons import AblateCommand, AttributeCommand, CompareCommand, DiscoverCommand, EffectsCommand, TensionCommand
from tl_reward.cli.options import Data, Models, Output, Running, Runs, merged, named
from tl_reward.cli.patching import LensCommand, PatchCommand, PatchModelsCommand
from tl_reward.cli.repair import RepairCommand
from tl_reward.cli.serve import ServeCommand
from tl_reward.errors import InputError, did_you_mean, one_line_errors, shown
from tl_reward.model import embedded
from tl_reward.model.training.config import TrainingConfig
from tl_reward.show.console import console, quiet
from tl_reward.terminal.progress import hushed


@runtime_checkable
class Command(Protocol):
    """A frozen dataclass whose fields are options: the text under each is its help, and the docstring the command's."""

    def run(self) -> None: ...


@dataclass(frozen=True)
class DemoCommand:
    """Run the main job once through on the embedded models and pairs, and write its page."""

    out: Path | None = None
    """The run folder to write. Default: runs/demo, with --smoke runs/smoke."""
    overwrite: bool = False
    """Replace a run folder that exists."""
    smoke: bool = False
    """Only try whether all of it works here: tiny random models and few pairs, whose numbers mean nothing. It needs no download."""
    quiet: bool = False
    """Print no progress and no tables: only where the run and its page are, and on standard error what went wrong."""

    def run(self) -> None:
        from tl_reward.cli.demo import run_demo

        page = run_demo(self.out or Path("runs/smoke" if self.smoke else "runs/demo"), overwrite=self.overwrite, smoke=self.smoke)
        console.print(f"Page: {page.resolve()}", soft_wrap=True)
        if not self.quiet:
            console.print(how_to_open(page), soft_wrap=True)


def how_to_open(page: Path) -> str:
    """Where there is a terminal and a browser, the command that opens the page; else what to do with it."""
    if console.is_terminal:
        try:
            webbrowser.get()
        except webbrowser.Error:
            return "No browser was found here: copy the file to a machine that has one. It needs no network."
        return f"Open it: {Path(sys.executable).name} -m webbrowser -t {shlex.quote(page.resolve().as_uri())}"
    return "Open it in a browser; it needs no network."


@dataclass(frozen=True)
class TrainCommand:
    """Train a reward model on preference pairs, with TRL. Needs the extra: pip install 'tl_reward[train]'."""

    out: Path
    """The folder to write the model to."""
    base: str = embedded.BASE
    """A causal language model: folder, hub id, or the embedded default."""
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    config: tyro.conf.OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)
    resume: bool = False
    """Go on from the last save of a training that was cut short."""
    quiet: bool = False
    """Print no progress and no figures: only where the model is, and on standard error what went wrong."""

    def run(self) -> None:
        from tl_reward.model.training import train

        pairs = [pair for part in self.data.load(split="train", embedded="find").values() for pair in part]
        record = train(self.base, pairs, self.out, self.config, resume=self.resume, progress="training")
        if not self.quiet:
            console.print(f"Trained on {record.pairs} pairs ({record.dropped} over-long ones left out) in {record.wall_seconds:.0f} s.")
        console.print(f"Model: {self.out.resolve()}", soft_wrap=True)


@dataclass(frozen=True)
class ScoreCommand:
    """Rewards, margins and accuracies of reward models on preference pairs."""

    models: Models
    """Folders, hub ids, or the embedded helpful, harmless, mixed; NAME=MODEL gives one a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)

    def run(self) -> None:
        from tl_reward.results.record_neurons import record_scores
        from tl_reward.running.scoring import score

        self.output.check()
        data = self.data.load(split="test", embedded="test")
        options = self.running.options_on(self.data)
        with self.output.run(data) as results:
            for name, model in self.running.models(self.models, results):
                for dataset, pairs in data.items():
                    scores = score(model, pairs, progress=f"{name}: {dataset}", **options)
                    record_scores(results, name, dataset, scores)


@dataclass(frozen=True)
class ReproduceCommand:
    """Reproduce arXiv 2606.13209 as a config says, and report on its claims. Goes on where an earlier run was cut short."""

    config: Path
    """A TOML file, such as experiments/configs/local.toml."""
    out: Path
    """The folder for cells and report; one of an earlier run of the same study goes on."""
    data: Path | None = None
    """The folder that $DATA stands for in the config."""
    plan: bool = False
    """Print every cell, what is missing, about how long all takes, and which claims the rows can decide; run nothing."""
    jobs: int = 1
    """Processes that compute cells side by side; fewer where memory has no room for them."""
    quiet: bool = False
    """Print no progress: only where the report is, and on standard error what went wrong."""

    def run(self) -> None:
        from tl_reward.study.compute.inputs import Inputs
        from tl_reward.study.compute.plan import print_reproduction_plan
        from tl_reward.study.config import load_config
        from tl_reward.study.power.claims import print_power
        from tl_reward.study.report.runner import reproduce

        config = load_config(self.config)
        if self.plan:
            inputs = Inputs(config, self.data)
            print_reproduction_plan(inputs, self.out, console)
            print_power(inputs, self.out, console)
            return
        try:
            report = reproduce(config, self.out, data=self.data, jobs=self.jobs)
        except KeyboardInterrupt:
            console.print("Stopped. The same command goes on from here.")
            raise SystemExit(130) from None
        console.print(f"Report: {report.resolve()}, and as a page {report.with_suffix('.html').name} beside it", soft_wrap=True)


@dataclass(frozen=True)
class DashboardCommand:
    """Write one self-contained HTML page from run folders. Runs no model."""

    runs: Runs
    """Run folders; several are shown on one page."""
    out: Path | None = None
    """The file to write. Default: dashboard.html in the first run folder."""
    overwrite: bool = False
    """Replace a page that exists."""

    def run(self) -> None:
        from tl_reward.show.page import write_page

        page = write_page(merged(self.runs), self.out or self.runs[0] / "dashboard.html", overwrite=self.overwrite)
        console.print(f"Page: {page.resolve()}", soft_wrap=True)


COMMANDS: dict[str, type[Command]] = {
    "demo": DemoCommand,
    "train": TrainCommand,
    "score": ScoreCommand,
    "discover": DiscoverCommand,
    "attribute": AttributeCommand,
    "effects": EffectsCommand,
    "tension": TensionCommand,
    "examples": ExamplesCommand,
    "ablate": AblateCommand,
    "patch": PatchCommand,
    "patch-models": PatchModelsCommand,
    "lens": LensCommand,
    "compare": CompareCommand,
    "repair": RepairCommand,
    "reproduce": ReproduceCommand,
    "dashboard": DashboardCommand,
    "serve": ServeCommand,
}


def run(args: Sequence[str] | None = None) -> int:
    """See `tl_reward.cli.main`."""
    given = list(sys.argv[1:] if args is None else args)
    if given[:1] == ["--version"]:
        print(f"tl-reward {_version()}")
        return 0
    with one_line_errors("tl-reward"):
        _check_names(given)
        command = _parsed(given)
        _check_values(command)
        with hushed(any(getattr(part, "quiet", False) for part in (command, getattr(command, "output", None)))):
            quiet()
            _run(command)
    return 0


def _version() -> str:
    """The version in pyproject.toml, as the installation knows it."""
    try:
        return version("tl_reward")
    except PackageNotFoundError:
        return "of a folder that is not installed"


def _run(command: Command) -> None:
    """Where memory runs out outside of what runs a model over pairs, such as in training, one line says so too."""
    try:
        command.run()
    except (MemoryError, RuntimeError):
        from tl_reward.devices import says_what_was_free

        with says_what_was_free("tl-reward", helps="a smaller model or less data, --dtype bfloat16, or another --device"):
            raise


def _check_names(given: Sequence[str]) -> None:
    """Raises InputError for a command or an option that there is not, with the one most like it."""
    if not given or given[0].startswith("-"):
        return
    name, *rest = given
    if name not in COMMANDS:
        raise InputError(f"no command {name!r}{did_you_mean(name, COMMANDS)} (tl-reward --help lists them)")
    known = ["--help", *dict(_options_of(COMMANDS[name]))]
    for option in (part.partition("=")[0] for part in rest if part.startswith("--")):
        if option.replace("_", "-") not in known:
            raise InputError(f"{name} has no option {option}{did_you_mean(option, known)} (tl-reward {name} --help lists them)")


def _options_of(command: type) -> Iterator[tuple[str, Any]]:
    """The options of a command, each with its type: the fields of its dataclass, and of those within it."""
    for name, hint in get_type_hints(command).items():
        if is_dataclass(hint):
            yield from _options_of(cast(type, hint))
        else:
            yield f"--{name.replace('_', '-')}", hint
            if hint is bool:
                yield f"--no-{name.replace('_', '-')}", hint


def _parsed(given: Sequence[str]) -> Command:
    """The command of some arguments. What the parser draws in a box becomes one line."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), _colours():
            return subcommand_cli_from_dict(COMMANDS, prog="tl-reward", description=f"{__doc__} --version prints the version.", args=given)
    except SystemExit:
        lines = [re.sub(r"[─-╿]", " ", line).strip() for line in said.getvalue().splitlines()[1:]]
        text = " ".join(line for line in lines if line)
        if text:
            raise InputError(_refused(given, text)) from None
        raise


@contextmanager
def _colours() -> Iterator[None]:
    """The parser does not know NO_COLOR; for a terminal that it takes for a dumb one it writes no codes."""
    terminal = os.environ.get("TERM")
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"
    try:
        yield
    finally:
        if terminal is not None:
            os.environ["TERM"] = terminal
        else:
            os.environ.pop("TERM", None)


def _refused(given: Sequence[str], text: str) -> str:
    """What the parser said of some arguments, in our words where it could not read a value."""
    unread = re.match(r"Error parsing (--[\w-]+):", text)
    if unread is None or given[0] not in COMMANDS:
        return text.replace("For full helptext, run", "See").rstrip(".: ")
    option = unread[1]
    at = next((i for i, each in enumerate(given) if each.partition("=")[0].replace("_", "-") == option), len(given))
    inline = given[at].partition("=")[2] if at < len(given) else ""
    value = inline or " ".join(itertools.takewhile(lambda each: not each.startswith("--"), given[at + 1 :]))
    return f"{option} must be {in_words(dict(_options_of(COMMANDS[given[0]]))[option])}, got {shown(value)}"


def _check_values(command: Any) -> None:
    """Numbers in their ranges, no option that needs a value without one, and models that may be there, before anything is imported that
    computes."""
    for each in fields(command):
        value: Any = getattr(command, each.name)
        if is_dataclass(value):
            _check_values(value)
        if each.name in ("model", "models") and value is not None:
            named([value] if isinstance(value, str) else cast(Sequence[str], value))
        check_range(each.name, value)
        if value == () and each.default not in ((), MISSING):
            raise InputError(f"--{each.name.replace('_', '-')} needs at least one value")
