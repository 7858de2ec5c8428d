"""Open up reward models: score preference pairs, find neurons, ablate them, and see the result on one page."""

import shlex
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import tyro
from tyro.conf import Positional
from tyro.extras import subcommand_cli_from_dict

from tl_reward.cli.examples import ExamplesCommand
from tl_reward.cli.neurons import AblateCommand, AttributeCommand, CompareCommand, DiscoverCommand, EffectsCommand, TensionCommand
from tl_reward.cli.options import Data, Output, Running, merged
from tl_reward.cli.patching import LensCommand, PatchCommand, PatchModelsCommand
from tl_reward.cli.serve import ServeCommand
from tl_reward.cli.study import ReproduceCommand
from tl_reward.errors import one_line_errors
from tl_reward.model import embedded
from tl_reward.model.training.config import TrainingConfig
from tl_reward.show.console import console, quiet


class Command(Protocol):
    """A frozen dataclass whose fields are options: the text under each is its help, and the docstring the command's."""

    def run(self) -> None: ...


@dataclass(frozen=True)
class DemoCommand:
    """Run the main job once through on the embedded models and pairs, and write its page."""

    out: Path = Path("runs/demo")
    """The run folder to write."""
    overwrite: bool = False
    """Replace a run folder that exists."""

    def run(self) -> None:
        from tl_reward.cli.demo import run_demo

        page = run_demo(self.out, overwrite=self.overwrite)
        console.print(f"\nPage: {page.resolve()}", soft_wrap=True)
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

    def run(self) -> None:
        from tl_reward.model.training import train

        pairs = [pair for part in self.data.load(split="train", embedded="find").values() for pair in part]
        record = train(self.base, pairs, self.out, self.config, resume=self.resume)
        console.print(f"Trained on {record.pairs} pairs ({record.dropped} over-long ones left out) in {record.wall_seconds:.0f} s.")
        console.print(f"Model: {self.out.resolve()}", soft_wrap=True)


@dataclass(frozen=True)
class ScoreCommand:
    """Rewards, margins and accuracies of reward models on preference pairs."""

    models: Positional[tuple[str, ...]]
    """Folders, hub ids, or the embedded helpful, harmless, mixed."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)

    def run(self) -> None:
        from tl_reward.results.record_neurons import record_scores
        from tl_reward.running.scoring import score

        self.output.check()
        data = self.data.load(split="test", embedded="test")
        with self.output.run(data) as results:
            for name, model in self.running.models(self.models):
                for dataset, pairs in data.items():
                    scores = score(model, pairs, progress=f"{name}: {dataset}", **self.running.options_on(self.data))
                    record_scores(results, name, dataset, scores)


@dataclass(frozen=True)
class DashboardCommand:
    """Write one self-contained HTML page from run folders. Runs no model."""

    runs: Positional[tuple[Path, ...]]
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
    "reproduce": ReproduceCommand,
    "dashboard": DashboardCommand,
    "serve": ServeCommand,
}


def run(args: Sequence[str] | None = None) -> int:
    """See `tl_reward.cli.main`."""
    command = subcommand_cli_from_dict(COMMANDS, prog="tl-reward", description=__doc__, args=args)
    quiet()
    with one_line_errors("tl-reward"):
        command.run()
    return 0
