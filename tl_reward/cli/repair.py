"""The command that repairs a model: from pairs of several objectives to an edit, the evidence for it, and a checkpoint."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tyro
from tyro.conf import Positional

from tl_reward.cli.options import Data, Output, Running, named, parted
from tl_reward.data.pairs import OBJECTIVES, Objective, PreferencePair, check_unique_ids
from tl_reward.data.readers import EMBEDDED, short_name
from tl_reward.errors import InputError
from tl_reward.repairing.config import RepairConfig
from tl_reward.show.console import console

if TYPE_CHECKING:
    from tl_reward.model.reward_model import HookedRewardModel
    from tl_reward.repairing.result import Repair
    from tl_reward.results.store import Results
    from tl_reward.running.options import RunOptions

ByName = dict[str, list[PreferencePair]]
Models = Mapping[str, "HookedRewardModel"]
# Names by which files and ratings tell pairs apart; mixed pairs are of no objective alone.
_KNOWN: dict[str, Objective] = {name: name for name in OBJECTIVES if name != "mixed"}


class _Read(NamedTuple):
    """A source as it was given, and its pairs."""

    name: str | None
    source: str
    label: str
    pairs: list[PreferencePair]


@dataclass(frozen=True)
class RepairCommand:
    """Edit few neurons so that a model serves several objectives better, test it beside controls, and write the edited checkpoint.

    Neurons are found on one set of prompts, the edit is chosen on a second, and tested on a third, which is read once. Without --find, the
    embedded pairs are all three. Writes repair.json (the evidence) and model/ (the checkpoint) into the run folder.
    """

    model: Positional[str]
    """The model to repair: folder, hub id, or an embedded model; NAME=MODEL gives it a name."""
    output: tyro.conf.OmitArgPrefixes[Output]
    find: tuple[str, ...] = ()
    """Pairs to find neurons on: files, folders, hub ids or "embedded". Each is OBJECTIVE=SOURCE, or its pairs name their objectives."""
    tune: tuple[str, ...] = ()
    """Pairs to choose the edit on, in the same form, of other prompts. Default: half of the prompts of --find."""
    test: tuple[str, ...] = ()
    """Pairs to test it on, in the same form, of other prompts than both."""
    protect: tuple[str, ...] = ()
    """Pairs that should not get worse, each SOURCE or NAME=SOURCE; they may be those of --test."""
    singles: tuple[str, ...] = ()
    """Reward models of one objective alone, each OBJECTIVE=MODEL: towards them neurons are scaled that serve another one at its cost."""
    beside: tuple[str, ...] = ()
    """Other models to score beside the repair, each MODEL or NAME=MODEL."""
    upper_mark: bool = False
    """Train LoRA on the pairs of --find and --tune too, and score that beside. Needs the extra: pip install 'tl_reward[train]'."""
    columns: tuple[str, ...] = ()
    """What the rows call prompt, chosen, rejected, system, id, objective, subset or split, each as prompt=NAME."""
    limit: int | None = None
    """Keep the first rows of each source, this many."""
    drop_bad: bool = False
    """Leave out pairs with an empty side or two equal ones, and those that the chat template refuses, instead of stopping."""
    config: tyro.conf.OmitArgPrefixes[RepairConfig] = field(default_factory=RepairConfig)
    running: tyro.conf.OmitArgPrefixes[Running] = field(default_factory=Running)

    def run(self) -> None:
        from tl_reward.interventions.folding import check_foldable
        from tl_reward.repairing.repair import check_names, repair
        from tl_reward.repairing.splits import split_of
        from tl_reward.results.record_edits import record_repair
        from tl_reward.running.batches.batching import read_alike
        from tl_reward.running.batches.budget import Sizes

        self.output.check()
        self._check_options()
        (name,) = self.running.named((self.model,))
        replace(self.running, output=None).named((self.model, *self.singles, *self.beside))
        read: ByName = {}
        find, tune, test, protect = self._sets(read)
        splits = split_of(find, tune, test, protect)
        check_names(splits, _named(self.singles), _named(self.beside))
        options = self.running.options_on(Data(drop_bad=self.drop_bad))
        with self.output.run(read, seed=self.config.seed) as results:
            model = self.running.model(self.model, results)
            check_foldable(model)
            singles, beside = (self._loaded(each, results) for each in (self.singles, self.beside))
            with read_alike([Sizes.of(each.cfg) for each in (model, *singles.values(), *beside.values())]):
                if self.upper_mark:
                    made_from = [pair for part in (splits.find, splits.tune) for pairs in part.values() for pair in pairs]
                    beside = {**beside, **self._upper_mark(model, made_from, results, options)}
                found = repair(
                    model, splits.find, splits.tune, splits.test, protect=splits.protect, singles=singles, beside=beside,
                    config=self.config, progress=name, **options,
                )  # fmt: skip
            record_repair(results, name, found)
        self._write(name, model, found, results)

    def _check_options(self) -> None:
        from tl_reward import parallel
        from tl_reward.repairing.upper_mark import check_can_train

        parallel.require_one("a repair")
        if self.running.intervention:
            raise InputError("repair takes no --intervention: the checkpoint that it writes could not hold that edit")
        if bool(self.find) != bool(self.test) or (self.tune and not self.find):
            raise InputError("--find and --test go together, --tune with both; without any of them, the embedded pairs are all three")
        if self.upper_mark:
            check_can_train()

    def _sets(self, read: ByName) -> tuple[ByName, ByName, ByName, ByName]:
        """The pairs to find, to tune and to test on by objective, and the protected ones by name. What was read goes into `read`."""
        from tl_reward.repairing.splits import halves_by_prompt

        find = self._by_objective("find", self.find or (EMBEDDED,), read, split="train", embedded="find")
        if self.tune:
            tune = self._by_objective("tune", self.tune, read, split="train", embedded="find")
        else:
            find, tune = map(_grouped, halves_by_prompt([pair for pairs in find.values() for pair in pairs]))
        test = self._by_objective("test", self.test or (EMBEDDED,), read, split="test", embedded="test")
        protect: ByName = {}
        for each in self._read("protect", self.protect, read, split="test", embedded="test"):
            name = each.name or short_name(each.source)
            if name in protect:
                raise InputError(f"two protected sets are called {name!r}; give one a name: NAME={each.source}")
            protect[name] = each.pairs
        return find, tune, test, protect

    def _by_objective(self, role: str, given: Sequence[str], read: ByName, *, split: str, embedded: str) -> ByName:
        pairs: list[PreferencePair] = []
        for each in self._read(role, given, read, split=split, embedded=embedded):
            nameless = next((pair.id for pair in each.pairs if pair.objective is None), None)
            if each.name is None and nameless is not None:
                raise InputError(
                    f"--{role} {each.source}: pair {nameless} names no objective; say which it is of, such as helpful={each.source}"
                )
            pairs += [replace(pair, objective=each.name) if each.name else pair for pair in each.pairs]
        found = _grouped(pairs)
        for objective, own in found.items():
            check_unique_ids(own, f"--{role}, {objective}")
        return found

    def _read(self, role: str, given: Sequence[str], read: ByName, *, split: str, embedded: str) -> Iterator[_Read]:
        """Each source with its pairs. Where its name is one of `_KNOWN`, pairs of other objectives are left out."""
        for each in given:
            name, source = parted(each, "an objective" if role != "protect" else "a protected set")
            if not source.strip():
                raise InputError(f"--{role} {each}: no source")
            known = _KNOWN.get(name or "") if role != "protect" else None
            data = Data((source,), objective=known, columns=self.columns, limit=self.limit, drop_bad=self.drop_bad)
            ((label, pairs),) = data.load(split=split, embedded=embedded).items()
            label = f"{role}: {f'{name}={label}' if name else label}"
            if label in read:
                raise InputError(f"--{role}: {each} is there twice")
            read[label] = pairs
            yield _Read(name, source, label, pairs)

    def _loaded(self, given: Sequence[str], results: "Results") -> "dict[str, HookedRewardModel]":
        """Other models by their names, each read by its own output."""
        from tl_reward.results.record_models import record_model

        found = {name: self.running.load(source, studied=False) for name, source in _named(given).items()}
        for name, model in found.items():
            record_model(results, name, model)
        return found

    def _training(self) -> Path:
        """Beside the run folder, which is written when all is done."""
        out = self.output.out.absolute()
        return out.with_name(f"{out.name}.upper-mark")

    def _upper_mark(self, model: "HookedRewardModel", pairs: list[PreferencePair], results: "Results", options: "RunOptions") -> Models:
        from tl_reward.repairing.upper_mark import UPPER_MARK, train_upper_mark
        from tl_reward.results.record_models import record_model

        trained = train_upper_mark(model, pairs, self._training(), seed=self.config.seed, progress=UPPER_MARK, **options)
        record_model(results, UPPER_MARK, trained)
        return {UPPER_MARK: trained}

    def _write(self, name: str, model: "HookedRewardModel", found: "Repair", results: "Results") -> None:
        """What stands beside the run in its folder."""
        from tl_reward.repairing.export import export, write_evidence

        out = self.output.out
        evidence = write_evidence(found, out, model=name, config=self.config, provenance=results.provenance)
        console.print(f"Evidence: {evidence.resolve()}", soft_wrap=True)
        if self.upper_mark:
            shutil.move(self._training() / "model", out / "upper-mark")
            self._training().rmdir()
        if found.chosen is None:
            console.print("No model is written: no edit gained on the tune pairs within the tolerance, so none was chosen.", soft_wrap=True)
            return
        folder = export(model, found, out / "model", command=results.provenance["command"])
        console.print(f"Model: {folder.resolve()}", soft_wrap=True)


def _named(given: Sequence[str]) -> Mapping[str, str]:
    return named(given) if given else {}


def _grouped(pairs: Sequence[PreferencePair]) -> ByName:
    """By objective, in the order in which they come."""
    found: ByName = {}
    for pair in pairs:
        found.setdefault(str(pair.objective), []).append(pair)
    return found
