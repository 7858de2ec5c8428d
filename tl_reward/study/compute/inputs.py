"""Which pairs does a config mean: to train on, to find neurons on, and to test on?"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig

from tl_reward.data.pairs import Objective, PreferencePair, check_unique_ids, data_hash
from tl_reward.data.readers import EMBEDDED, load_pairs, short_name
from tl_reward.errors import InputError
from tl_reward.model import embedded
from tl_reward.model.checkpoints.folders import local_folder
from tl_reward.model.origin import digest_of
from tl_reward.study.benchmarks import OBJECTIVE_TEST, benchmark_of, subtask_of
from tl_reward.study.compute.dealing import CHARACTERS_A_TOKEN, Named, characters, row_of, rows_to_take
from tl_reward.study.config import Base, SingleObjective, Source, StudyConfig, is_hub, located
from tl_reward.study.config_values import asked_of


class Tested(NamedTuple):
    """Pairs, the sub-task of each by its id, and a hash of all that is recorded of them."""

    pairs: tuple[PreferencePair, ...]
    tasks: dict[str, str]
    hash: str


class Learnt(NamedTuple):
    """Pairs that models are trained on, or that neurons are found on, and their hash."""

    pairs: tuple[PreferencePair, ...]
    hash: str


class Inputs:
    """The pairs and models that a config names; each is read once.

    Args:
        data: the folder that `$DATA` stands for.

    Raises:
        InputError: from every method, where a source cannot be read.
    """

    def __init__(self, config: StudyConfig, data: str | Path | None) -> None:
        self.config, self.data = config, data
        self._bases = {base.name: base for base in config.bases}
        self.read = lru_cache(None)(self._read)
        self.train = lru_cache(None)(self._train)
        self.find = lru_cache(None)(self._find)
        self.named = lru_cache(None)(self._named)
        self.tested = lru_cache(None)(self._tested)

    def base(self, name: str) -> Base:
        return self._bases[name]

    def _of(self, objective: str, part: str) -> list[list[PreferencePair]]:
        """The pairs of each objective that a model of this one learns, row by row from each source, so that the first ones are of all."""
        own: list[SingleObjective] = [name for name in ("helpful", "harmless") if objective in (name, "mixed")]
        return [_dealt([self.read(source, name, part) for source in getattr(self.config.data[name], part)]) for name in own]

    def _read(self, source: Source, objective: Objective | None, part: str) -> list[PreferencePair]:
        """The pairs of one source; `part` is "train" or "test". Bad pairs are left out: the published data have some."""
        found = located(source, self.data)
        default = {"train": "find", "test": "test"}[part] if found.source == EMBEDDED else part if is_hub(found) else None
        split = found.split or default
        return load_pairs(
            found.source, objective=objective, subset=found.subset, data_dir=found.data_dir, split=split, limit=found.limit, on_bad="drop"
        )  # fmt: skip

    def _train(self, objective: str) -> Learnt:
        return _learnt([pair for part in self._of(objective, "train") for pair in part])

    def _find(self, objective: str) -> Learnt:
        return _learnt([pair for part in self._of(objective, "train") for pair in part[: self.config.limits.discovery]])

    def _tested(self, test: str, objective: str, edited: bool) -> Tested:
        """The pairs of a benchmark, or `OBJECTIVE_TEST`: the test pairs of an objective. `edited`: those for edited models."""
        parts, most = self.named(test, objective, edited), rows_to_take(self.config, self.named, test, objective, edited)
        kept = [each for part in parts for each in _first_rows(part, most)]
        limits = self.config.limits
        if not edited and limits.edited.get(test) != 0 and (limits.half_width or limits.edited_max_length):
            # What edited models are tested on need not be among the first rows here, and is what they are compared on.
            ids = {pair.id for pair, _ in kept} | {pair.id for pair in self.tested(test, objective, True).pairs}
            kept = [each for part in parts for each in part if each[0].id in ids]
        return _joined(kept)

    def _named(self, test: str, objective: str, edited: bool) -> list[list[Named]]:
        """All pairs that there are, each with its sub-task: of an objective's own ones in parts, of one objective each."""
        if test == OBJECTIVE_TEST:
            parts = [[(pair, OBJECTIVE_TEST) for pair in part] for part in self._of(objective, "test")]
        else:
            parts = [self._of_benchmark(test)]
        tokens = asked_of(self.config.limits.edited_max_length, test) if edited else None
        short = parts if tokens is None else [_short(part, tokens) for part in parts]
        if any(parts) and not any(short):
            raise InputError(f"limits.edited_max_length = {tokens} leaves no row of {test} for edited models")
        return short

    def _of_benchmark(self, test: str) -> list[Named]:
        named = []
        for source in self.config.benchmarks[test]:
            own = short_name(located(source, self.data).source)
            data_set = own if benchmark_of(own) else f"{test}/{own}"
            try:
                named += [(pair, subtask_of(pair, data_set).name) for pair in self.read(source, source.objective, "test")]
            except InputError as error:
                raise InputError(f"benchmarks.{test}: {error}") from None
        return named

    @cached_property
    def base_hashes(self) -> dict[str, str]:
        """What each base is: the files of a folder; of one on the hub, its name and revision; of the embedded one, its name."""
        return {base.name: _identity(base.source) for base in self.config.bases}

    def base_at_revision(self, name: str) -> str:
        """What a base is loaded from: of one on the hub, the folder of the revision that its hash names: a later one is another."""
        source, (*_, revision) = self.base(name).source, self.base_hashes[name].split(" ")
        if not _on_hub(source) or revision == "None":
            return source
        return str(local_folder(source, {"revision": revision}))

    @cached_property
    def adapter_hashes(self) -> dict[str, str]:
        return {name: files_hash((embedded.ADAPTERS / name).iterdir()) for name in embedded.REWARD_MODELS}


def _dealt(sources: Sequence[Sequence[PreferencePair]]) -> list[PreferencePair]:
    rows = [[list(row) for _, row in groupby(pairs, key=lambda pair: pair.group or pair.id)] for pairs in sources]
    return [pair for turn in zip_longest(*rows, fillvalue=()) for row in turn for pair in row]


def _first_rows(named: Sequence[Named], most: Mapping[str, int | None]) -> list[Named]:
    """The pairs of the first rows of each sub-task; a best-of-n row is one, and keeps all of its pairs."""
    rows: dict[str, set[str]] = defaultdict(set)
    kept = []
    for pair, task in named:
        row, limit = row_of(pair), most[task]
        if limit is None or row in rows[task] or len(rows[task]) < limit:
            rows[task].add(row)
            kept.append((pair, task))
    return kept


def _short(named: Sequence[Named], tokens: int) -> list[Named]:
    """Rows of which no transcript has more characters than so many tokens have by `CHARACTERS_A_TOKEN`. Counted so, the rows are the same
    for every base."""
    long = {row_of(pair) for pair, _ in named if max(characters(pair)) > tokens * CHARACTERS_A_TOKEN}
    return [(pair, task) for pair, task in named if row_of(pair) not in long]


def _joined(named: Sequence[Named]) -> Tested:
    pairs, tasks = tuple(pair for pair, _ in named), {pair.id: task for pair, task in named}
    check_unique_ids(pairs, "the pairs of a benchmark")
    said = [[pair.id, tasks[pair.id], pair.group, pair.subset, pair.objective] for pair in pairs]
    return Tested(pairs, tasks, hashlib.sha256(json.dumps([data_hash(pairs), said]).encode()).hexdigest())


def _learnt(pairs: Sequence[PreferencePair]) -> Learnt:
    return Learnt(tuple(pairs), data_hash(pairs))


def _on_hub(source: str) -> bool:
    return source != embedded.BASE and not Path(source).is_dir()


def _identity(source: str) -> str:
    if Path(source).is_dir():
        return files_hash(path for path in Path(source).iterdir() if path.is_file())
    return source if not _on_hub(source) else f"{source} {AutoConfig.from_pretrained(source, trust_remote_code=False)._commit_hash}"


def files_hash(paths: Iterable[Path], *, cards: bool = False) -> str:
    """sha256 over the names and bytes of files, in the order of their paths; a model's card is no part of it, unless asked for."""
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if cards or path.suffix != ".md"):
        digest.update(path.name.encode())
        digest.update(bytes.fromhex(digest_of(path)))
    return digest.hexdigest()
