"""Open up reward models: score preference pairs, find neurons, ablate them, and see the result on one page."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional

from tl_reward import zoo
from tl_reward.errors import InputError, one_line_errors
from tl_reward.options import Data, Output, Running
from tl_reward.results import Results, check_run_folder, provenance
from tl_reward.sites import check_fraction
from tl_reward.statistics import StatisticName
from tl_reward.training import TrainingConfig

NeuronSite = Literal["mlp_post", "mlp_gate"]
_out = Console(markup=False)  # names and paths may hold brackets


@dataclass(frozen=True)
class Demo:
    """Run the main job once through on the embedded models and pairs, and write its page."""

    out: Path = Path("runs/demo")
    """The run folder to write."""
    overwrite: bool = False
    """Replace a run folder that exists."""

    def run(self) -> None:
        from tl_reward.demo import run_demo

        page = run_demo(self.out, overwrite=self.overwrite)
        _print_run(self.out)
        _out.print(f"\nPage: {page.resolve()}", soft_wrap=True)
        _out.print("Open it in a browser; it needs no network.")


@dataclass(frozen=True)
class Train:
    """Train a reward model on preference pairs, with TRL. Needs the extra: pip install 'tl_reward[train]'."""

    out: Path
    """The folder to write the model to."""
    base: str = zoo.BASE
    """A causal language model: folder, hub id, or the embedded default."""
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    config: tyro.conf.OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)
    resume: bool = False
    """Go on from the last checkpoint of a training that was cut short."""

    def run(self) -> None:
        from tl_reward.training import train

        pairs = [pair for part in self.data.load(split="train", embedded="find").values() for pair in part]
        record = train(self.base, pairs, self.out, self.config, resume=self.resume)
        _out.print(f"Trained on {record.pairs} pairs ({record.dropped} over-long ones left out) in {record.wall_seconds:.0f} s.")
        _out.print(f"Model: {self.out.resolve()}", soft_wrap=True)


@dataclass(frozen=True)
class Score:
    """Rewards, margins and accuracies of reward models on preference pairs."""

    models: Positional[tuple[str, ...]]
    """Folders, hub ids, or the embedded helpful, harmless, mixed."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)

    def run(self) -> None:
        from tl_reward.record import record_scores
        from tl_reward.run import score

        check_run_folder(self.output.out, overwrite=self.output.overwrite)
        data = self.data.load(split="test", embedded="test")
        results = Results(provenance=provenance(data=data))
        for name, source in _named(self.models).items():
            model = _load(source, self.running)
            for dataset, pairs in data.items():
                scores = score(model, pairs, progress=f"{name}: {dataset}", **self.running.options)
                record_scores(results, name, dataset, scores)
        _finish(results, self.output)


@dataclass(frozen=True)
class Discover:
    """Per-neuron statistics of reward models: mean, abs_mean, rms, probability, and change against a base model."""

    models: Positional[tuple[str, ...]]
    """Folders, hub ids, or the embedded helpful, harmless, mixed."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    base: str | None = None
    """The language model that they were trained from, for the change score."""
    sites: tuple[NeuronSite, ...] = ("mlp_post", "mlp_gate")
    """Readings of a neuron: mlp_post is act(gate)*up, mlp_gate is act(gate)."""

    def run(self) -> None:
        from tl_reward.discovery import discover
        from tl_reward.model import HookedRewardModel
        from tl_reward.record import record_discovery

        check_run_folder(self.output.out, overwrite=self.output.overwrite)
        data = self.data.load(split="test", embedded="find")
        results = Results(provenance=provenance(data=data))
        pairs = [pair for part in data.values() for pair in part]
        options = _model_options(self.running)
        base = HookedRewardModel.from_base(self.base, **options) if self.base else None
        for name, source in _named(self.models).items():
            model = _load(source, self.running)
            found = discover(model, pairs, base=base, sites=self.sites, progress=f"{name}: neurons", **self.running.options)
            record_discovery(results, name, " + ".join(data), found)
        _finish(results, self.output)


@dataclass(frozen=True)
class Attribute:
    """Estimate every neuron's effect on the margin from one backward pass, and check a sample of them by zeroing each alone."""

    models: Positional[tuple[str, ...]]
    """Folders, hub ids, or the embedded helpful, harmless, mixed."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    site: NeuronSite = "mlp_post"
    """The reading of a neuron: mlp_post is act(gate)*up, mlp_gate is act(gate)."""
    steps: int | None = None
    """With a number, integrated gradients of as many steps. Default: activation times gradient."""
    top: int = 16
    """Neurons with the largest estimates to zero, each alone."""
    random: int = 16
    """Neurons drawn at random to zero, each alone."""
    seed: int = 0
    """Seed of the random sample."""

    def run(self) -> None:
        from tl_reward.attribution import attribute
        from tl_reward.effects import compare_with_exact
        from tl_reward.record import record_attribution

        check_run_folder(self.output.out, overwrite=self.output.overwrite)
        data = self.data.load(split="test", embedded="test")
        results = Results(provenance=provenance(seed=self.seed, data=data))
        for name, source in _named(self.models).items():
            model = _load(source, self.running)
            for dataset, pairs in data.items():
                label, options = f"{name}: {dataset}", self.running.options
                found = attribute(model, pairs, site=self.site, steps=self.steps, progress=f"{label}, all neurons", **options)
                checked = compare_with_exact(
                    model, pairs, found.effect, top=self.top, random=self.random, seed=self.seed, site=self.site,
                    progress=f"{label}, single neurons", **options,
                )  # fmt: skip
                record_attribution(results, name, dataset, found, checked, site=self.site, steps=self.steps)
        _finish(results, self.output)


@dataclass(frozen=True)
class Ablate:
    """Zero a reward model's top neurons, share by share, beside layer-matched random sets."""

    model: Positional[str]
    """Folder, hub id, or an embedded model."""
    ranking: Path
    """The run folder of `tl-reward discover` that ranks the neurons. Find them on other pairs than those tested here."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    score: StatisticName = "mean"
    """The statistic that ranks; the study's magnitude is the mean at mlp_gate."""
    site: NeuronSite = "mlp_gate"
    """The reading that it is of."""
    fractions: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    """Shares of all neurons."""
    draws: int = 3
    """Random sets at each share."""
    seed: int = 0
    """Seed of the random sets."""

    def run(self) -> None:
        from tl_reward.ablation import ablation_curve
        from tl_reward.record import ranking_of, record_ablation

        check_run_folder(self.output.out, overwrite=self.output.overwrite)
        for fraction in self.fractions:
            check_fraction(fraction)
        found = Results.load(self.ranking)
        name = next(iter(_named((self.model,))))
        ranking = ranking_of(found, name, self.score, self.site)
        data = self.data.load(split="test", embedded="test")
        results = Results(provenance=provenance(seed=self.seed, data=data))
        model = _load(self.model, self.running)
        for dataset, pairs in data.items():
            curve = ablation_curve(
                model, pairs, ranking, fractions=self.fractions, draws=self.draws, seed=self.seed,
                progress=f"{name}: {dataset}", **self.running.options,
            )  # fmt: skip
            entry = found.section("discovery")[name]
            record_ablation(results, name, dataset, curve, score=self.score, site=self.site, found=entry, pairs=pairs)
        _finish(results, self.output)


@dataclass(frozen=True)
class Compare:
    """Overlap of the top neurons of reward models, beside chance. Runs no model."""

    runs: Positional[tuple[Path, ...]]
    """Run folders of `tl-reward discover`, on two or more models in all."""
    output: tyro.conf.OmitArgPrefixes[Output]
    score: StatisticName = "mean"
    """The statistic that ranks."""
    site: NeuronSite = "mlp_gate"
    """The reading that it is of."""
    fraction: float = 0.1
    """Share of all neurons."""

    def run(self) -> None:
        from tl_reward.record import record_overlap

        check_run_folder(self.output.out, overwrite=self.output.overwrite)
        found = _merged(self.runs)
        results = Results(provenance=found.provenance | {"command": provenance()["command"]})
        record_overlap(results, found, score=self.score, site=self.site, fraction=self.fraction)
        _finish(results, self.output)


@dataclass(frozen=True)
class Dashboard:
    """Write one self-contained HTML page from run folders. Runs no model."""

    runs: Positional[tuple[Path, ...]]
    """Run folders; several are shown on one page."""
    out: Path | None = None
    """The file to write. Default: dashboard.html in the first run folder."""
    overwrite: bool = False
    """Replace a page that exists."""

    def run(self) -> None:
        from tl_reward.dashboard import write_page

        merged = _merged(self.runs)
        page = write_page(merged, self.out or self.runs[0] / "dashboard.html", overwrite=self.overwrite)
        _out.print(f"Page: {page.resolve()}", soft_wrap=True)


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Discover, tyro.conf.subcommand("discover")]
    | Annotated[Attribute, tyro.conf.subcommand("attribute")]
    | Annotated[Ablate, tyro.conf.subcommand("ablate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Dashboard, tyro.conf.subcommand("dashboard")]
)


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command, and returns 0. Bad input exits with status 2, said in one line on standard error."""
    command = tyro.cli(Command, prog="tl-reward", description=__doc__, args=args)  # type: ignore[call-overload]
    _quiet()
    with one_line_errors("tl-reward"):
        command.run()
    return 0


def _quiet() -> None:
    """transformers logs every config it reads; its progress bars are about loading weights."""
    import logging

    from transformers.utils import logging as hf_logging

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")  # about its own insides
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _named(models: Sequence[str]) -> dict[str, str]:
    """Each model by its last path part, which is what run folders and plots call it."""
    if not models:
        raise InputError(f"at least one model is needed; embedded: {', '.join(zoo.REWARD_MODELS)}")
    named = {Path(model).name or model: model for model in models}
    if len(named) < len(models):
        raise InputError(f"models must have different names, got {', '.join(models)}")
    return named


def _merged(folders: Sequence[Path]) -> Results:
    if not folders:
        raise InputError("at least one run folder is needed, got none")
    return Results.merge([Results.load(folder) for folder in folders])


def _model_options(running: Running) -> dict:
    import torch

    try:
        device = torch.device(running.device) if running.device else None
    except RuntimeError as error:
        raise InputError(f"device {running.device!r} is not one of torch's ({str(error).splitlines()[0]})") from None
    return {"dtype": getattr(torch, running.dtype), "device": device}


def _load(source: str, running: Running):
    from tl_reward.model import HookedRewardModel

    return HookedRewardModel.from_pretrained(source, **_model_options(running))


def _finish(results: Results, output: Output) -> None:
    results.save(output.out, overwrite=output.overwrite)
    _print_run(output.out)
    _out.print(f"Run: {output.out.resolve()}", soft_wrap=True)


def _print_run(folder: Path) -> None:
    from tl_reward.summary import summary

    summary(Results.load(folder), _out)
