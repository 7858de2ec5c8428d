"""What the commands share: which pairs to read, how to run the model, where to write, and what is printed then."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from tl_reward.data.pairs import Objective, Overlong, PreferencePair
from tl_reward.data.readers import EMBEDDED, load_pairs, short_name
from tl_reward.errors import InputError, Lacking, did_you_mean
from tl_reward.measures.names import EDITED, labelled
from tl_reward.model import embedded
from tl_reward.sites import UnitSite, unit_shape

if TYPE_CHECKING:
    from tl_reward.model.reward_model import HookedRewardModel
    from tl_reward.results.store import Results
    from tl_reward.running.options import RunOptions


@dataclass(frozen=True)
class Data:
    """Which preference pairs to read."""

    pairs: tuple[str, ...] = ("embedded",)
    """Files (.json, .jsonl, .csv, .tsv, also .gz; .parquet), folders of them, hub ids such as Anthropic/hh-rlhf, or "embedded"."""
    objective: Objective | None = None
    """Keep pairs of this objective, and mark those that name none with it, which is said. Refused where a file names others alone."""
    subset: str | None = None
    """Keep pairs of this subset."""
    split: str | None = None
    """Split of a hub data set, of a folder whose files' names tell theirs, or of a file whose rows name theirs; refused where they name
    others alone. The embedded pairs have find and test. Default: train to train; find where neurons are found (discover, tension); test
    elsewhere."""
    name: str | None = None
    """Configuration of a hub data set."""
    data_dir: str | None = None
    """Folder within a hub data set."""
    columns: tuple[str, ...] = ()
    """What the rows call prompt, chosen, rejected, system, id, objective, subset or split, each as prompt=NAME."""
    limit: int | None = None
    """Keep the first rows of each file, this many, whatever their objective; a best-of-n row counts as one."""
    drop_bad: bool = False
    """Leave out pairs with an empty side or two equal ones, and those that the chat template refuses, instead of stopping."""

    def load(self, *, split: str, embedded: str) -> dict[str, list[PreferencePair]]:
        """The pairs of each source, by a name that says what was kept of it.

        Args:
            split: the default split of a hub data set.
            embedded: the default split of the embedded pairs.
        """
        result: dict[str, list[PreferencePair]] = {}
        for source in self.pairs:
            local = source != EMBEDDED and Path(source).exists()
            chosen = self.split or (embedded if source == EMBEDDED else None if local else split)
            kept = [self.name, chosen, self.objective, self.subset, f"first {self.limit}" if self.limit else None]
            name = ", ".join([short_name(source), *(part for part in kept if part)])
            if name in result:
                raise InputError(f"two sources are called {name!r}; rename one")
            result[name] = load_pairs(
                source, objective=self.objective, subset=self.subset, name=self.name, data_dir=self.data_dir, split=chosen,
                limit=self.limit, columns=_columns(self.columns), on_bad="drop" if self.drop_bad else "error",
            )  # fmt: skip
        return result


def _columns(given: Sequence[str]) -> dict[str, str]:
    parts = [each.partition("=") for each in given]
    wrong = next((each for each, (ours, _, theirs) in zip(given, parts, strict=True) if not ours or not theirs), None)
    if wrong is not None:
        raise InputError(f"--columns must name each column as prompt=NAME, got {wrong!r}")
    return {ours: theirs for ours, _, theirs in parts}


@dataclass(frozen=True)
class Running:
    """How to run the model."""

    max_tokens: int | None = None
    """Tokens a batch; a prefix that transcripts share counts once. Default: as many as run fastest and fit."""
    max_memory_gb: float | None = None
    """Memory that a batch may take besides the model's weights, in GiB. Default: half of what is free."""
    max_length: int | None = None
    """Longest transcript, in tokens. Default: the shortest context of the models, or what fits in memory: one for all of a command."""
    overlong: Overlong = "drop"
    """What to do with longer ones: drop the pair, cut tokens off the left, or stop."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model. The head and all sums are wider: float32 and float64."""
    device: str | None = None
    """Default: the GPU if there is one."""
    readout: Literal["mask", "hf"] = "mask"
    """Where the reward is read: at the last token, or where Hugging Face reads it, at the last one that is not the pad token."""
    template: str | None = None
    """How transcripts are written: hh (HH-RLHF turns), plain, or a file with a Jinja chat template. Default: the tokenizer's own."""
    adapter_base: str | None = None
    """Base model of the adapters among the models, where the one that their config names is elsewhere."""
    head: str | None = None
    """Of a language model, which logit is the reward: token:0 (an id, or a token's text), or token:Yes-No for a difference. Digits are
    an id; token:text=5 is the token "5". Others have a head in their files."""
    intervention: tuple[str, ...] = ()
    """Edits of the model that is studied, each module:name of an intervention of your own, applied in their order."""
    output: str | None = None
    """Which of a head's outputs is the reward: its name, its index, or weights over outputs such as helpfulness=0.65,verbosity=-0.2."""

    @property
    def precision(self) -> dict[str, Any]:
        """How `HookedRewardModel` loads a model."""
        import torch

        return {"dtype": getattr(torch, self.dtype), "device": self.device}

    def load(self, source: str, *, studied: bool = True) -> "HookedRewardModel":
        """Loads a model, to be read by the output of the options; one that is not studied itself keeps its own."""
        from tl_reward.model.heads.chosen import parsed
        from tl_reward.model.reward_model import HookedRewardModel

        model = HookedRewardModel.from_pretrained(
            source, base=self._base_of(source), template=self.template, readout=self.readout, head=self.head, **self.precision
        )
        if self.output is not None and studied:
            model.output = parsed(self.output, model.outputs)
        return model

    def _base_of(self, source: str) -> str | None:
        """The base to load a model with: that of the options where it is an adapter."""
        from tl_reward.model.checkpoints import is_adapter

        return self.adapter_base if self.adapter_base and is_adapter(source) else None

    def check_base(self, models: Mapping[str, str]) -> None:
        """Raises InputError for a base of adapters where none of the models is one."""
        from tl_reward.model.checkpoints import is_adapter

        if self.adapter_base and not any(map(is_adapter, models.values())):
            raise InputError(f"--adapter-base is for adapters, and {', '.join(models)} {'is none' if len(models) == 1 else 'are none'}")

    def label(self, model: str) -> str:
        """What run folders and plots call a model: one that is edited is not called as the one that is not. (The output that it is read by
        comes after that: `measures.names.labelled`.)"""
        return EDITED.join([model, *(name.partition(":")[2] for name in self.intervention)])

    def _output_name(self, source: str) -> str:
        """What results call the output of the options; "" where there is none. Says no to one that a model does not have."""
        from tl_reward.model.checkpoints import outputs_of
        from tl_reward.model.heads.chosen import name_of, parsed

        if self.output is None:
            return ""
        names = outputs_of(source, base=self._base_of(source))
        try:
            return name_of(parsed(self.output, names), names)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    def named(self, models: Sequence[str]) -> dict[str, str]:
        """Where each model is, by its label. Says no before any model runs: to a device that is not here, to interventions that do not
        load, to models that cannot be read."""
        return {name: source for name, (source, _) in self._looked_at(models).items()}

    def _looked_at(self, models: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
        """`named`, with the fields of each model's TransformerLens config."""
        from tl_reward.data.text import check_template
        from tl_reward.devices import check_device
        from tl_reward.interventions.from_functions import load_interventions
        from tl_reward.model.checkpoints import check_reward_model

        found = {self.label(name): source for name, source in named(models).items()}
        check_device(self.device)
        check_template(self.template)
        load_interventions(self.intervention)
        self.check_base(found)
        looked_at = {
            name: (source, check_reward_model(source, base=self._base_of(source), head=self.head)) for name, source in found.items()
        }
        return {labelled(name, self._output_name(source)): (source, fields) for name, (source, fields) in looked_at.items()}

    def models(self, sources: Sequence[str], results: "Results") -> "Iterator[tuple[str, HookedRewardModel]]":
        """Loads one model after another, each with its label, and records them; all are looked at first, and read the same pairs."""
        from tl_reward.running.batches.batching import read_alike
        from tl_reward.running.batches.budget import Sizes

        found = self._looked_at(sources)
        with read_alike([Sizes.of(config) for _, config in found.values()]):
            for name, given in zip(found, sources, strict=True):
                yield name, self.model(given, results)

    def model(self, given: str, results: "Results", found: "Results | None" = None, *, other_model: bool = False) -> "HookedRewardModel":
        """Loads one model, which `named` has looked at, and records it. Says no where `found`, a run whose neurons are to be used, has them
        of another model."""
        from tl_reward.results.record_models import check_model, record_model

        ((plain, source),) = named((given,)).items()
        model = self.load(source)
        record_model(results, self.label(plain), model)
        if found is not None:
            check_model(found, self.recorded(found, given), model, other_model=other_model)
        return model

    def recorded(self, run: "Results", given: str, section: str | None = None, *, other_model: bool = False) -> str:
        """What a run calls this model: edited and read as it is now, or else unedited, or without a choice of its output.

        Args:
            section: where it is looked up; None is all of the run.
            other_model: one that is read by another output will do, where the run has one alone.
        """
        *_, plain = labels = self._labels(given)
        entries: Mapping[str, Any] = run.section(section) if section and section in run.sections else {}
        called = {entry.get("model", name) for name, entry in entries.items()} if section else run.models()
        others = [name for name in called if name.startswith(f"{plain} · ")] if other_model else []
        return next((label for label in labels if label in called), others[0] if len(others) == 1 and plain not in called else plain)

    def _labels(self, given: str) -> tuple[str, ...]:
        ((plain, source),) = named((given,)).items()
        output = self._output_name(source)
        return labelled(self.label(plain), output), labelled(plain, output), self.label(plain), plain

    def asked_of_files(self, names: Sequence[str], given: str, site: UnitSite, *, other_model: bool) -> dict[str, Any]:
        """What `NeuronSet.load` asks of files among some names of neurons that are for this model."""
        from tl_reward.running.batches.budget import Sizes

        if not any(name.endswith(".json") for name in names):
            return {}  # and no model is looked at
        ((_, fields),) = self._looked_at((given,)).values()
        return {"models": () if other_model else self._labels(given), "shape": unit_shape(Sizes.of(fields), site)}

    def options_on(self, data: Data) -> "RunOptions":
        """What every function that runs a model takes."""
        from tl_reward.interventions.from_functions import load_interventions

        return {
            "interventions": load_interventions(self.intervention),
            "max_tokens": self.max_tokens,
            "max_memory_gb": self.max_memory_gb,
            "max_length": self.max_length,
            "overlong": self.overlong,
            "on_bad": "drop" if data.drop_bad else "error",
        }


@dataclass(frozen=True)
class Output:
    """Where to write."""

    out: Path
    """The run folder to write."""
    overwrite: bool = False
    """Replace a run folder that exists."""
    quiet: bool = False
    """Print no progress and no tables: only where the run is, and on standard error what went wrong."""

    def check(self) -> None:
        """Says no before data are read and models loaded, not after it."""
        from tl_reward.results.disk.folder import check_run_folder

        check_run_folder(self.out, overwrite=self.overwrite)

    def run(
        self, data: Mapping[str, Sequence[PreferencePair]] | None = None, *, seed: int | None = None
    ) -> "AbstractContextManager[Results]":
        """See `tl_reward.run_folder`."""
        from tl_reward.show.run_folder import run_folder

        return run_folder(self.out, data=data, seed=seed, overwrite=self.overwrite)


def named(models: Sequence[str]) -> dict[str, str]:
    """Where each model is, by what run folders and plots call it: the name that it was given, as NAME=MODEL, or the last part of its path.

    Raises:
        InputError: no model; two of one name; a name that cannot be shown, or is the path of another model; a misspelt embedded model.
    """
    if not models:
        raise InputError(f"at least one model is needed; embedded: {', '.join(embedded.REWARD_MODELS)}")
    found: dict[str, str] = {}
    for given in models:
        own, path = parted(given)
        name = own or Path(path).name or path
        # A single word is one that is embedded, or a folder here; few models of the hub have no owner.
        word = path not in embedded.REWARD_MODELS and not os.path.exists(path) and "/" not in path
        near = did_you_mean(path, embedded.REWARD_MODELS) if word else ""
        if near or not path.strip():
            raise InputError(f"no model {path!r}: no such folder here{near}")
        if name in found:
            raise InputError(f"models must have different names, got {name} twice{_other_names(name, found[name], path)}")
        found[name] = path
    clash = next((name for name, path in found.items() if name != path and name in found.values()), None)
    if clash is not None and f"{clash}={found[clash]}" in models:
        raise InputError(f"{clash} is the path of another of the models: give {found[clash]} another name")
    return found


def parted(given: str, what: str = "a model") -> tuple[str | None, str]:
    """Of NAME=SOURCE both; a path that holds "=" is no such thing, and has no name. Raises InputError: a name that cannot be shown."""
    name, equals, path = given.partition("=")
    if not equals or os.path.exists(given) or "/" in name or os.sep in name:
        return None, given
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise InputError(f"{what}'s name must be printable, not blank, and without blanks around it, got {name!r} in {given!r}")
    return name, path


def _other_names(name: str, *paths: str) -> str:
    """The end of a message about two models of one name: how to give them others."""
    if len(set(paths)) == 1:
        return ""
    folders = [Path(path).absolute().parent.name for path in paths]
    others = [f"{folder}-{name}" for folder in folders] if len({"", *folders}) == 3 else [f"{name}-1", f"{name}-2"]
    return f"; name them: {' '.join(shlex.quote(f'{other}={path}') for other, path in zip(others, paths, strict=True))}"


def merged(folders: Sequence[Path]) -> "Results":
    """The runs in some folders, as one."""
    from tl_reward.results.store import Results

    if not folders:
        raise InputError("at least one run folder is needed, got none")
    return Results.merge([Results.load(folder) for folder in folders])


# The command that writes a section, where its name is another.
_WRITERS = {"scores": "score", "discovery": "discover", "attribution": "attribute", "tension": "tension"}


@contextmanager
def reading(*folders: Path) -> Iterator[None]:
    """Says of what a run lacks which folder it is in, and which command writes it."""
    try:
        yield
    except InputError as error:
        writer = _WRITERS.get(error.section) if isinstance(error, Lacking) else None
        hint = f" (tl-reward {writer} makes one)" if writer else ""
        if writer == "discover" and "attribution" in str(error):
            hint = " (--score attribution ranks by that; tl-reward discover makes a discovery)"
        raise InputError(f"{', '.join(map(str, folders))}: {error}{hint}") from None


Models = Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required)")]
Runs = Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")]
