"""The commands that move activations: within a pair, between reward models; and the reward read from every layer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import tyro
from tyro.conf import Positional

from tl_reward.cli.options import Data, Models, Output, Running, named
from tl_reward.data.pairs import Objective, PreferencePair
from tl_reward.errors import InputError
from tl_reward.sites import SiteKind, UnitSite, Where, unit_shape


@dataclass(frozen=True)
class PatchCommand:
    """Patch each pair's chosen run from its rejected one, and back: which sites suffice to move the reward."""

    models: Models
    """Folders, hub ids, or the embedded helpful, harmless, mixed; NAME=MODEL gives one a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    kinds: tuple[SiteKind, ...] = ("resid_post", "attn_out", "mlp_out")
    """Sites, in every layer; of attn_z each head by itself."""
    where: tuple[Where, ...] = ("all",)
    """Tokens to patch: the read-out token, the response, or all that have a counterpart."""
    neurons: tuple[str, ...] = ()
    """Neurons to patch together besides, as layer.number, such as 20.131, or files of them (.json) that a run's page has saved."""
    other_model: bool = False
    """Take the neurons of a file that names another model."""
    tokens: str | None = None
    """The id of one pair, to patch it alone at the first of the kinds, one token and layer at a time."""

    def run(self) -> None:
        from tl_reward.analyses.pair_patching import aligned_tokens, patch_pairs
        from tl_reward.neurons import NeuronSet
        from tl_reward.results.record_patching import record_patching

        self.output.check()
        neurons = None
        for model in self.models if self.neurons else ():
            neurons = NeuronSet.parse(
                self.neurons, **self.running.asked_of_files(self.neurons, model, "mlp_post", other_model=self.other_model)
            )
        if self.tokens is not None and (not self.kinds or self.kinds[0] == "attn_z" or self.neurons):
            raise InputError("--tokens patches one kind of site whole, not heads or neurons: give it as the first of --kinds")
        data = self._one_pair(self.data.load(split="test", embedded="test"))
        options = self.running.options_on(self.data)
        with self.output.run(data) as results:
            for name, model in self.running.models(self.models, results):
                for dataset, pairs in data.items():
                    label = f"{name}: {dataset}"
                    if self.tokens is None:
                        found = patch_pairs(model, pairs, kinds=self.kinds, where=self.where, neurons=neurons, progress=label, **options)
                        record_patching(results, name, dataset, found)
                        continue
                    tokens = aligned_tokens(model, pairs[0], **options)
                    places = list(range(-len(tokens), 0))
                    found = patch_pairs(model, pairs, kinds=self.kinds[:1], where=places, progress=label, **options)
                    record_patching(results, name, dataset, found, tokens=tokens)

    def _one_pair(self, data: dict[str, list[PreferencePair]]) -> Mapping[str, list[PreferencePair]]:
        if self.tokens is None:
            return data
        found = {f"{name}, pair {pair.id}": [pair] for name, part in data.items() for pair in part if pair.id == self.tokens}
        if not found:
            known = ", ".join(pair.id for part in data.values() for pair in part[:3])
            raise InputError(f"no pair has the id {self.tokens!r}; the first ones are {known}")
        return found


@dataclass(frozen=True)
class PatchModelsCommand:
    """Patch one model's neurons from another of the same shape: what the source's top neurons give back, and what they cost."""

    model: Positional[str]
    """The model that is patched: folder, hub id, or an embedded model."""
    source: Positional[str]
    """The model that activations come from."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    find: tuple[str, ...] = ("embedded",)
    """Pairs that rank the neurons: files, hub ids or "embedded" (whose split find is taken)."""
    find_objective: Objective | None = None
    """Of these, keep pairs of this objective."""
    find_limit: int | None = None
    """Of these, keep the first rows of each file, this many."""
    fractions: tuple[float, ...] = (0.01, 0.05, 0.2, 1.0)
    """Shares of all neurons."""
    draws: int = 3
    """Layer-matched random sets at each share."""
    site: UnitSite = "mlp_post"
    """mlp_post and mlp_gate are two readings of a neuron, act(gate)*up and act(gate); attn_z is for attention heads."""
    where: Where = "all"
    """Tokens whose activations are replaced."""
    top: int = 16
    """Neurons with the largest estimated gain or loss to patch, each alone, to check the estimate."""
    random: int = 16
    """Neurons drawn at random to patch, each alone. With 0 of both, the estimate is not checked."""
    seed: int = 0
    """Seed of random sets and samples."""

    def run(self) -> None:
        from tl_reward.analyses.exact_effects import check_sample
        from tl_reward.analyses.model_patching import compare_gain_with_exact, gain, output_of_source, patch_models
        from tl_reward.neurons import count_of
        from tl_reward.results.found_on import found_on
        from tl_reward.results.record_models import record_model
        from tl_reward.results.record_patching import record_gain, record_model_patching

        self.output.check()
        if self.top or self.random:
            check_sample(self.top, self.random)
        _, (source, path) = named((self.model, self.source)).items()
        (target,) = self.running.named((self.model,))
        replace(self.running, output=None).named((self.source,))
        tested = self.data.load(split="test", embedded="test")
        finding = replace(self.data, pairs=self.find, objective=self.find_objective, limit=self.find_limit, split=None, subset=None)
        finders = finding.load(split="train", embedded="find")
        pairs = [pair for part in finders.values() for pair in part]
        origin = found_on(" + ".join(finders), pairs)
        options, site, where = self.running.options_on(self.data), self.site, self.where
        with self.output.run(tested | finders, seed=self.seed) as results:
            both = self.running.model(self.model, results), self.running.load(path, studied=False)
            both[1].output = output_of_source(*both)  # said no to before anything runs; None is the source's own
            record_model(results, source, both[1])
            units = math.prod(unit_shape(both[0].cfg, site))
            for fraction in self.fractions:
                count_of(fraction, units)
            if self.top or self.random:
                check_sample(self.top, self.random, units=units)
            estimate = gain(*both, pairs, site=site, where=where, progress=f"gain from {source}", **options)
            if self.top or self.random:
                checked = compare_gain_with_exact(
                    *both, pairs, {"gradient": estimate.effect}, site=site, where=where, top=self.top, random=self.random,
                    seed=self.seed, progress="one by one", **options,
                )  # fmt: skip
                record_gain(results, target, source, origin["dataset"], estimate, checked)
            for dataset, part in tested.items():
                found = patch_models(
                    *both, part, estimate.effect, fractions=self.fractions, draws=self.draws, seed=self.seed, site=site, where=where,
                    progress=f"{source} into {target}: {dataset}", **options,
                )  # fmt: skip
                record_model_patching(
                    results, target, source, dataset, found, ranking="estimated gain", site=site, where=where, source=origin, pairs=part,
                )  # fmt: skip


@dataclass(frozen=True)
class LensCommand:
    """Read the reward from every layer's residual stream and after every token: where a preference is decided."""

    models: Models
    """Folders, hub ids, or the embedded helpful, harmless, mixed; NAME=MODEL gives one a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    show: int = 3
    """Pairs of each data set to keep token by token, for the page."""

    def run(self) -> None:
        from tl_reward.analyses.reward_lens import reward_lens
        from tl_reward.results.record_patching import record_lens

        self.output.check()
        data = self.data.load(split="test", embedded="test")
        options = self.running.options_on(self.data)
        with self.output.run(data) as results:
            for name, model in self.running.models(self.models, results):
                for dataset, pairs in data.items():
                    found = reward_lens(model, pairs, progress=f"{name}: {dataset}", **options)
                    record_lens(results, name, dataset, found, model.tokenizer, show=self.show)
