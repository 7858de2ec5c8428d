"""The commands that look inside a reward model: neurons, effects, tension, ablation, overlap."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from tyro.conf import Positional

from tl_reward.cli.options import Data, Models, Output, Running, Runs, merged, reading
from tl_reward.data.pairs import Objective, PreferencePair
from tl_reward.errors import InputError
from tl_reward.measures.names import AblationKind, Method, RankingName
from tl_reward.sites import UNIT_SITES, UnitSite, unit_shape

if TYPE_CHECKING:
    from tl_reward.analyses import exact_effects
    from tl_reward.analyses.attribution import Attribution
    from tl_reward.model.reward_model import HookedRewardModel
    from tl_reward.neurons import NeuronSet


@dataclass(frozen=True)
class DiscoverCommand:
    """Per-neuron statistics: mean, abs_mean, rms, probability, change against a base model, and chosen against rejected."""

    models: Models
    """Folders, hub ids, or the embedded helpful, harmless, mixed; NAME=MODEL gives one a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    base: str | None = None
    """The language model that they were trained from, for the change score."""
    sites: tuple[UnitSite, ...] = UNIT_SITES
    """Readings of a neuron: mlp_post is act(gate)*up, mlp_gate is act(gate)."""

    def run(self) -> None:
        from tl_reward.analyses.discovery import discover
        from tl_reward.model.reward_model import HookedRewardModel
        from tl_reward.results.record_neurons import record_discovery

        self.output.check()
        data = self.data.load(split="test", embedded="find")
        pairs = [pair for part in data.values() for pair in part]
        options = self.running.options_on(self.data)
        with self.output.run(data) as results:
            base = HookedRewardModel.from_base(self.base, **self.running.precision) if self.base else None
            for name, model in self.running.models(self.models, results):
                found = discover(model, pairs, base=base, sites=self.sites, progress=f"{name}: neurons", **options)
                record_discovery(results, name, " + ".join(data), found)


@dataclass(frozen=True)
class AttributeCommand:
    """Estimate every neuron's effect on the margin from one backward pass, and check a sample of them by zeroing each alone."""

    models: Models
    """Folders, hub ids, or the embedded helpful, harmless, mixed; NAME=MODEL gives one a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    methods: tuple[Method, ...] = ("gradient",)
    """How to estimate: activation times gradient against zero (gradient), the neuron's mean (mean) or the paired transcript (pair),
    integrated gradients (integrated), or direct reward attribution (direct). Several are compared."""
    site: UnitSite = "mlp_post"
    """mlp_post and mlp_gate are two readings of a neuron, act(gate)*up and act(gate); attn_z is for attention heads."""
    steps: int = 8
    """Steps of integrated gradients."""
    top: int = 16
    """Neurons with the largest estimates of each method to zero, each alone."""
    random: int = 16
    """Neurons drawn at random to zero, each alone."""
    seed: int = 0
    """Seed of the random sample."""

    def run(self) -> None:
        from tl_reward.analyses.attribution import check_estimate, estimate
        from tl_reward.analyses.exact_effects import check_sample, compare_with_exact
        from tl_reward.model.heads.chosen import check_direction
        from tl_reward.results.record_neurons import record_attribution

        self.output.check()
        check_sample(self.top, self.random)
        for method in self.methods:
            check_estimate(method, self.site)
        data = self.data.load(split="test", embedded="test")
        options = self.running.options_on(self.data)
        with self.output.run(data, seed=self.seed) as results:
            for name, model in self.running.models(self.models, results):
                check_sample(self.top, self.random, units=math.prod(unit_shape(model.cfg, self.site)))
                if "direct" in self.methods:
                    check_direction(model)
                for dataset, pairs in data.items():
                    label = f"{name}: {dataset}"
                    found: dict[Method, Attribution] = {
                        method: estimate(model, pairs, method, site=self.site, steps=self.steps, progress=f"{label}, {method}", **options)
                        for method in dict.fromkeys(self.methods)
                    }
                    checked = compare_with_exact(
                        model, pairs, {method: each.effect for method, each in found.items()}, top=self.top, random=self.random,
                        seed=self.seed, site=self.site, progress=f"{label}, one by one", **options,
                    )  # fmt: skip
                    record_attribution(results, name, dataset, found, checked)


@dataclass(frozen=True)
class EffectsCommand:
    """What ablating neurons does to rewards, exactly: each alone and all together, or the sets of a run beside random ones."""

    model: Positional[str]
    """Folder, hub id, or an embedded model; NAME=MODEL gives it a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    neurons: tuple[str, ...] = ()
    """Neurons (or heads) as layer.number, such as 20.131, or files of them (.json) that a run's page has saved."""
    sets: Path | None = None
    """Instead: a run folder of `tl-reward tension`, whose sets to zero, each whole."""
    kind: AblationKind = "zero"
    """Set neurons to 0 (zero), to their mean (mean), to what they are at tokens drawn at random (resample), or to half (halve)."""
    source: tuple[str, ...] = ()
    """Pairs that means and drawn tokens come from, such as helpful ones for a test on harmless ones: files, hub ids or "embedded".
    Default: the tested ones."""
    source_objective: Objective | None = None
    """Of these, keep pairs of this objective."""
    site: UnitSite = "mlp_post"
    """What the numbers count: neurons (mlp_post, mlp_gate) or attention heads (attn_z)."""
    other_model: bool = False
    """Take the run's neurons even if it found them in another model of that name, and those of a file that names another model."""
    draws: int = 3
    """Layer-matched random sets beside each set."""
    seed: int = 0
    """Seed of random sets and of drawn tokens."""

    def run(self) -> None:
        from tl_reward.analyses.ablation_curves import ablate_sets
        from tl_reward.neurons import NeuronSet
        from tl_reward.results.record_edits import record_effects, record_sets, sets_of
        from tl_reward.results.store import Results

        self.output.check()
        if bool(self.neurons) == (self.sets is not None):
            raise InputError("give either --neurons or --sets")
        if self.sets is not None and self.kind != "zero":
            raise InputError(f"sets are zeroed; kind {self.kind} is for --neurons")
        if self.kind == "mean" and self.site == "attn_z":
            raise InputError("kind mean is for neurons; for heads choose zero, resample or halve")
        source_run = Results.load(self.sets) if self.sets else None
        (name,) = self.running.named((self.model,))
        asked = self.running.asked_of_files(self.neurons, self.model, self.site, other_model=self.other_model)
        given = NeuronSet.parse(self.neurons, **asked) if self.neurons else None
        with reading(*([self.sets] if self.sets else [])):
            found = (
                sets_of(source_run, self.running.recorded(source_run, self.model, "tension", other_model=self.other_model))
                if source_run
                else None
            )
        data = self.data.load(split="test", embedded="test")
        drawn_from = replace(self.data, pairs=self.source, objective=self.source_objective, subset=None)
        source = drawn_from.load(split="test", embedded="test")
        drawn = [pair for part in source.values() for pair in part]
        options = self.running.options_on(self.data)
        with self.output.run(data | source, seed=self.seed) as results:
            model = self.running.model(self.model, results, source_run, other_model=self.other_model)
            if given is not None:
                given.check_fits(*unit_shape(model.cfg, self.site))  # says which one the model does not have
            for dataset, pairs in data.items():
                label = f"{name}: {dataset}"
                if found is not None:
                    site = found.entry["site"]
                    ablated = ablate_sets(model, pairs, found.sets, draws=self.draws, seed=self.seed, site=site, progress=label, **options)
                    record_sets(results, name, dataset, ablated, site=site, source=found.entry, pairs=pairs)
                if given is not None:
                    record_effects(results, name, dataset, self._effects(model, pairs, drawn or pairs, given, label))

    def _effects(
        self, model: "HookedRewardModel", pairs: list[PreferencePair], source: list[PreferencePair], neurons: "NeuronSet", label: str
    ) -> "exact_effects.Effects":
        from tl_reward.analyses.discovery import discover
        from tl_reward.analyses.exact_effects import set_effects, singles
        from tl_reward.running.activations import sample_activations

        options = self.running.options_on(self.data)
        mean = bank = None
        if self.kind == "mean":
            mean = discover(model, source, sites=(self.site,), **options).ranking("mean", self.site)
        if self.kind == "resample":
            bank = sample_activations(model, source, self.site, seed=self.seed, **options)
        sets = singles(neurons) | ({"all together": neurons} if len(neurons) > 1 else {})
        return set_effects(model, pairs, sets, kind=self.kind, site=self.site, mean=mean, bank=bank, progress=label, **options)


@dataclass(frozen=True)
class TensionCommand:
    """Each neuron's effect on the margins of two objectives: which support both, and which one at the other's cost."""

    models: Models
    """Folders, hub ids, or the embedded helpful, harmless, mixed; NAME=MODEL gives one a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    method: Method = "gradient"
    """How to estimate effects, as in `tl-reward attribute`."""
    site: UnitSite = "mlp_post"
    """mlp_post and mlp_gate are two readings of a neuron, act(gate)*up and act(gate); attn_z is for attention heads."""
    fraction: float = 0.02
    """Share of all neurons that counts as the top of each objective, for the sets that `tl-reward effects --sets` zeroes."""

    def run(self) -> None:
        from tl_reward.analyses.tension import check_with_error, of_two_objectives, tension
        from tl_reward.neurons import count_of
        from tl_reward.results.record_neurons import record_tension

        self.output.check()
        check_with_error(self.method, self.site)
        data = self.data.load(split="test", embedded="find")
        pairs = [pair for part in data.values() for pair in part]
        of_two_objectives(pairs)
        options = self.running.options_on(self.data)
        with self.output.run(data) as results:
            for name, model in self.running.models(self.models, results):
                count_of(self.fraction, math.prod(unit_shape(model.cfg, self.site)))
                found = tension(model, pairs, site=self.site, method=self.method, progress=name, **options)
                record_tension(results, name, " + ".join(data), found, fraction=self.fraction)


@dataclass(frozen=True)
class AblateCommand:
    """Zero a reward model's top neurons, share by share, beside layer-matched random sets."""

    model: Positional[str]
    """Folder, hub id, or an embedded model; NAME=MODEL gives it a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    ranking: Path | None = None
    """The run folder of `tl-reward discover` or `attribute` that ranks them. Find neurons on other pairs than those tested here."""
    neurons: tuple[str, ...] = ()
    """Instead: neurons to zero whole, as layer.number, such as 20.131, and files of them (.json) that a run's page has saved: each file
    is a set."""
    other_model: bool = False
    """Take the run's neurons even if it found them in another model of that name, and those of a file that names another model."""
    score: RankingName | Literal["attribution"] = "mean"
    """What ranks: a statistic, a contrast of chosen and rejected, entropy over objectives, random, or the attribution of a run. The
    study's magnitude is the mean at mlp_gate."""
    site: UnitSite = "mlp_gate"
    """The reading that it is of, or attn_z for attention heads."""
    fractions: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    """Shares of all neurons."""
    draws: int = 3
    """Random sets at each share."""
    seed: int = 0
    """Seed of the random sets."""

    def run(self) -> None:
        from tl_reward.analyses.ablation_curves import ablation_curve
        from tl_reward.neurons import count_of
        from tl_reward.results.record_edits import record_ablation
        from tl_reward.results.record_neurons import ranking_of
        from tl_reward.results.store import Results

        self.output.check()
        if bool(self.neurons) == (self.ranking is not None):
            raise InputError("give either --ranking or --neurons")
        if self.ranking is None:
            self._zero_sets()
            return
        run = Results.load(self.ranking)  # before the model: its base may have to be fetched
        (name,) = self.running.named((self.model,))
        with reading(self.ranking):
            section = "attribution" if self.score == "attribution" else "discovery"
            of = self.running.recorded(run, self.model, section, other_model=self.other_model)
            found = ranking_of(run, of, self.score, self.site)
        for fraction in self.fractions:
            count_of(fraction, found.ranking.numel())
        data = self.data.load(split="test", embedded="test")
        options = self.running.options_on(self.data)
        with self.output.run(data, seed=self.seed) as results:
            model = self.running.model(self.model, results, run, other_model=self.other_model)
            for dataset, pairs in data.items():
                curve = ablation_curve(
                    model, pairs, found.ranking, fractions=self.fractions, draws=self.draws, seed=self.seed, site=self.site,
                    progress=f"{name}: {dataset}", **options,
                )  # fmt: skip
                record_ablation(results, name, dataset, curve, score=self.score, site=self.site, found=found.entry, pairs=pairs)

    def _zero_sets(self) -> None:
        """The neurons that were named, each set whole."""
        from tl_reward.analyses.ablation_curves import ablate_sets
        from tl_reward.results.record_edits import record_sets

        if self.score != AblateCommand.score or self.fractions != AblateCommand.fractions:
            raise InputError("sets are zeroed whole, each as it is named; --score and --fractions are for --ranking")
        sets = self._sets()
        (name,) = self.running.named((self.model,))
        data = self.data.load(split="test", embedded="test")
        options = self.running.options_on(self.data)
        with self.output.run(data, seed=self.seed) as results:
            model = self.running.model(self.model, results)
            for dataset, pairs in data.items():
                label = f"{name}: {dataset}"
                found = ablate_sets(model, pairs, sets, draws=self.draws, seed=self.seed, site=self.site, progress=label, **options)
                record_sets(results, name, dataset, found, site=self.site, source=None, pairs=pairs)

    def _sets(self) -> "dict[str, NeuronSet]":
        """Each file by its name, and what was named one by one together."""
        from tl_reward.neurons import NeuronSet

        files = [given for given in self.neurons if given.endswith(".json")]
        asked = self.running.asked_of_files(self.neurons, self.model, self.site, other_model=self.other_model)
        alone = NeuronSet.parse((given for given in self.neurons if given not in files), **asked)
        sets = {"named neurons": alone} if alone else {}
        for file in files:
            if Path(file).stem in sets:
                raise InputError(f"two sets are called {Path(file).stem!r}; rename a file")
            sets[Path(file).stem] = NeuronSet.load(file, **asked)
        return sets


@dataclass(frozen=True)
class CompareCommand:
    """Overlap of the top neurons of reward models, or by several scores or at both sites, beside chance. Runs no model."""

    runs: Runs
    """Run folders of `tl-reward discover` or `attribute`."""
    output: tyro.conf.OmitArgPrefixes[Output]
    score: tuple[RankingName | Literal["attribution"], ...] = ("mean",)
    """What ranks, as in `tl-reward ablate`; several are compared."""
    site: tuple[UnitSite, ...] = ("mlp_gate",)
    """The reading that it is of; several are compared."""
    fraction: float = 0.1
    """Share of all neurons."""

    def run(self) -> None:
        from tl_reward.results.record_neurons import record_overlap

        self.output.check()
        found = merged(self.runs)
        listed = {*found.sections.get("discovery", {}), *(each["model"] for each in found.sections.get("attribution", {}).values())}
        if len(listed) * len(set(self.score)) * len(set(self.site)) == 1:
            (alone,) = listed
            raise InputError(
                f"{', '.join(map(str, self.runs))}: it has neurons of {alone} alone; two models are compared, or several --score or --site "
                "of one; give the run of another model too (tl-reward discover MODEL --out RUN makes it)"
            )
        with self.output.run() as results, reading(*self.runs):
            results.provenance = found.provenance | {"command": results.provenance["command"]}
            record_overlap(results, found, scores=self.score, sites=self.site, fraction=self.fraction)
