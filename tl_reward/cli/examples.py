"""The command that shows what drives neurons: transcripts and tokens, distributions, words."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import Positional

from tl_reward.cli.options import Data, Output, Running, named, reading
from tl_reward.errors import InputError
from tl_reward.model import embedded
from tl_reward.sites import Where


@dataclass(frozen=True)
class ExamplesCommand:
    """Show what drives neurons: the transcripts and tokens at which each is strongest, its distribution, and its words.

    The state is kept in OUT.partial beside the run folder: the same command goes on from there after a cut.
    """

    model: Positional[str]
    """Folder, hub id, or an embedded model; NAME=MODEL gives it a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    data: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)
    neurons: tuple[str, ...] = ()
    """Neurons to show in detail, as layer.number, such as 20.131, or files of them (.json) that a run's page has saved."""
    ranking: Path | None = None
    """Instead: a run folder of tension, attribute, effects or discover, whose top neurons to show."""
    other_model: bool = False
    """Take the run's neurons even if it found them in another model of that name, and those of a file that names another model."""
    most: int = 500
    """Of these, this many."""
    base: str | None = None
    """The language model that it was trained from, for the words that neurons raise. Default: an embedded model's own; else none."""
    where: Where = "response"
    """Tokens over which peaks and distributions are taken."""
    site: Literal["mlp_post", "mlp_gate"] = "mlp_post"
    """mlp_post and mlp_gate are two readings of a neuron, act(gate)*up and act(gate)."""
    seed: int = 0
    """Seed of the transcripts drawn at random."""

    def run(self) -> None:
        from tl_reward.analyses.examples.collect import collect_examples
        from tl_reward.model.checkpoints import load_unembedding
        from tl_reward.neurons import NeuronSet
        from tl_reward.results.record_examples import neurons_to_show, record_examples
        from tl_reward.results.store import Results

        state = self.output.out.absolute()
        state = state.with_name(f"{state.name}.partial")
        _forget_finished(state, self.output.out)
        self.output.check()
        if bool(self.neurons) == (self.ranking is not None):
            raise InputError("give either --neurons or --ranking")
        run = Results.load(self.ranking) if self.ranking is not None else None
        ((_, path),), (name,) = named((self.model,)).items(), self.running.named((self.model,))
        asked = self.running.asked_of_files(self.neurons, self.model, self.site, other_model=self.other_model)
        neurons = NeuronSet.parse(self.neurons, **asked)
        if self.ranking is not None and run is not None:
            with reading(self.ranking):
                neurons = neurons_to_show(run, self.running.recorded(run, self.model, other_model=self.other_model), most=self.most)
        data = self.data.load(split="test", embedded="test")
        pairs = [pair for part in data.values() for pair in part]
        shipped = path in embedded.REWARD_MODELS and embedded.resolve(path) != path
        base = self.base or (embedded.BASE if shipped else None)
        with self.output.run(data, seed=self.seed) as results:
            model = self.running.model(self.model, results, run, other_model=self.other_model)
            found = collect_examples(
                model, pairs, neurons, site=self.site, where=self.where, unembedding=load_unembedding(base) if base else None,
                saved=state, seed=self.seed, progress=name, **self.running.options_on(self.data),
            )  # fmt: skip
            record_examples(results, name, " + ".join(data), found)
        state.unlink(missing_ok=True)  # the run is on disk


def _forget_finished(state: Path, run: Path) -> None:
    """Deletes the state of a collection that was cut short after its run was written: the run is newer than its last state."""
    from tl_reward.results.disk.folder import last_written

    written = last_written(run)
    if written is not None and state.exists() and written >= state.stat().st_mtime_ns:
        state.unlink()
