"""What does a reproduction run? A TOML file says it, which is read strictly into frozen classes that pydantic checks."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from tl_reward.data.readers import EMBEDDED, looks_local
from tl_reward.errors import InputError
from tl_reward.model import embedded
from tl_reward.model.training import TrainingConfig
from tl_reward.study.benchmarks import OBJECTIVE_TEST
from tl_reward.study.config_values import (
    ALL,
    FromOne,
    FromZero,
    HalfWidth,
    Name,
    Shares,
    SharesOrZero,
    as_files,
    by_benchmark,
    check_apart,
    without_seed,
)
from tl_reward.study.matrix import Conventions

ObjectiveName = Literal["helpful", "harmless", "mixed"]
SingleObjective = Literal["helpful", "harmless"]
Ranking = Literal["mean", "abs_mean", "rms", "probability", "entropy", "change", "random"]
DATA = "$DATA"
STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, config=STRICT)
class Base:
    """A language model that reward models are trained from.

    Attributes:
        name: what cells and tables call it. A claim about one of the study's models is judged by the bases whose name begins with its.
        source: a folder, a hub id, or the embedded `embedded.BASE`.
        shipped: the embedded adapters count as its reward models of seed 0.
    """

    name: Name
    source: str
    shipped: bool = False

    def __post_init__(self) -> None:
        hub = self.source.count("/") == 1 and not self.source.startswith((".", "/"))
        if not (hub or self.source == embedded.BASE or Path(self.source).is_dir()):
            raise InputError(f"model {self.source!r} is no folder, no hub id (owner/name), and not embedded ({embedded.BASE})")
        if self.shipped and self.source != embedded.BASE:
            raise InputError(f"the embedded adapters were trained from {embedded.BASE}; {self.name} is {self.source}")


@dataclass(frozen=True, config=STRICT)
class Source:
    """Preference pairs: a file (`$DATA/…` is under the data folder), a hub id, or "embedded". The rest is as in `readers.load_pairs`;
    `objective` is for the pairs of a benchmark that do not name theirs."""

    source: str
    data_dir: str | None = None
    split: str | None = None
    subset: str | None = None
    objective: SingleObjective | None = None
    limit: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


@dataclass(frozen=True, config=STRICT)
class ObjectiveData:
    """The pairs of one objective; a mixed model is trained and tested on those of both."""

    train: tuple[Source, ...]
    test: tuple[Source, ...]


@dataclass(frozen=True, config=STRICT)
class Limits:
    """How much of the data is used; None is all. Of several sources of an objective, rows are taken in turn. Several limits hold together.

    Attributes:
        rows: the first rows of each sub-task, and of each objective's test pairs (a best-of-n row counts as one).
        edited: how many of these edited models are tested on, by benchmark ("objective test": an objective's test pairs); one that is
            not named is tested on all. 0: not at all. A model is scored once, but edited dozens of times.
        discovery: the first training pairs of each objective, on which neurons are found.
        half_width: of 95 % intervals of accuracy, instead of a number of rows: one for all benchmarks, or by benchmark. An unedited model
            gets so many rows of each sub-task that its accuracy there has it; edited ones so many that the change of the mean over a
            group's sub-tasks has it, most of them where rows are short (`expected.dealt`, which says by which variances).
        edited_max_length: tokens of a transcript that an edited model is given, where `max_length` allows more: of all benchmarks, or by
            benchmark. Its rows are taken among those of at most four characters a token; of these, pairs that are longer all the same
            are left out, and counted. Unedited models are tested on these rows too, beside their own first ones.
    """

    rows: FromOne | None = None
    edited: Mapping[str, FromZero] = field(default_factory=dict)
    discovery: FromOne | None = None
    half_width: Annotated[Mapping[str, HalfWidth], BeforeValidator(by_benchmark)] | None = None
    edited_max_length: Annotated[Mapping[str, FromOne], BeforeValidator(by_benchmark)] | None = None


@dataclass(frozen=True, config=STRICT)
class Retrain:
    """Models that are trained again without their top neurons, on a random sample of `pairs` training pairs (None: all).

    Attributes:
        kinds: "masked" and "pruned" (`training.train`).
        fractions: shares of all neurons; 0 is a control that keeps all, trained alike.
        objectives, ranking: of which models, and the ranking that says which neurons.
    """

    kinds: tuple[Literal["masked", "pruned"], ...] = ()
    fractions: SharesOrZero = ()
    objectives: tuple[ObjectiveName, ...] = ()
    ranking: Ranking = "mean"
    pairs: FromOne | None = None


@dataclass(frozen=True, config=STRICT)
class StudyConfig:
    """All of a reproduction.

    Attributes:
        data: by objective, "helpful" and "harmless".
        benchmarks: by name. Which sub-task a pair is of follows from its source's name, or from that of the benchmark
            (`benchmarks.subtask_of`).
        rankings: "entropy" (`Selectivity.ranking`) ranks only the neurons that fire often, and no share beyond them is zeroed.
        fractions: shares of all neurons that are zeroed, by each ranking. set_fractions, patch_fractions: those of the top sets that
            specific and shared sets are made from, and those that are patched from the helpful into the mixed model; by the first
            ranking.
        draws: layer-matched random sets at each fraction.
        conventions: how neurons are summed over, and top sets cut and intersected: "ours", or "study" as arXiv 2606.13209's code
            (`study.top_sets`).
    """

    bases: tuple[Base, ...]
    objectives: tuple[ObjectiveName, ...]
    seeds: tuple[int, ...]
    training: Annotated[TrainingConfig, BeforeValidator(without_seed)]
    data: Mapping[SingleObjective, ObjectiveData]
    rankings: tuple[Ranking, ...]
    fractions: Shares
    benchmarks: Mapping[Name, tuple[Source, ...]] = field(default_factory=dict)
    set_fractions: Shares = ()
    patch_fractions: Shares = ()
    draws: FromZero = 3
    limits: Limits = field(default_factory=Limits)
    retrain: Retrain = field(default_factory=Retrain)
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    max_length: FromOne | None = None
    conventions: Conventions = "ours"

    def __post_init__(self) -> None:
        named = {"bases": [base.name for base in self.bases], "objectives": self.objectives, "seeds": self.seeds, "rankings": self.rankings}
        for key, values in named.items():
            if not values or len(set(values)) < len(values):
                raise InputError(f"{key} must name one or more, each once, got {', '.join(map(str, values)) or 'none'}")
        check_apart("names of bases", (base.name for base in self.bases))
        check_apart("names of benchmarks", self.benchmarks)
        if OBJECTIVE_TEST in map(as_files, self.benchmarks):
            raise InputError(f"benchmarks: {OBJECTIVE_TEST!r} is what the test pairs of an objective are called; choose another name")
        self._check_data()
        self._check_sets()
        self._check_retrain()

    def _check_data(self) -> None:
        needed = data_needed(self)
        missing = [name for name in needed if name not in self.data]
        if missing:
            compared = "; the ranking entropy compares both objectives" if "entropy" in self.rankings else ""
            raise InputError(f"data.{missing[0]} is missing; objectives are {', '.join(self.objectives)}{compared}")
        listed = {f"data.{name}.{part}": getattr(self.data[name], part) for name in needed for part in ("train", "test")}
        for key, sources in (listed | {f"benchmarks.{name}": sources for name, sources in self.benchmarks.items()}).items():
            if not sources:
                raise InputError(f"{key} must list one or more sources of pairs, got none")
        tests = (OBJECTIVE_TEST, *self.benchmarks)
        for key in ("edited", "half_width", "edited_max_length"):
            names = getattr(self.limits, key) or {}
            unknown = [name for name in names if name not in tests and name != ALL]
            if unknown:
                raise InputError(f"limits.{key} names no benchmark {unknown[0]!r}; there are {', '.join(tests)}")

    def _check_sets(self) -> None:
        if not (self.set_fractions or self.patch_fractions):
            return
        lacking = set(get_args(ObjectiveName)) - set(self.objectives)
        if lacking:
            raise InputError(f"set_fractions and patch_fractions need all three objectives; objectives lacks {', '.join(sorted(lacking))}")
        _check_ranks_all("rankings[0]", self.rankings[0])

    def _check_retrain(self) -> None:
        again = self.retrain
        if set(again.objectives) - set(self.objectives):
            raise InputError(
                f"retrain.objectives must be among objectives ({', '.join(self.objectives)}), got {', '.join(again.objectives)}"
            )
        if again.kinds:
            _check_ranks_all("retrain.ranking", again.ranking)
            if again.ranking not in self.rankings:
                raise InputError(f"retrain.ranking must be one of rankings ({', '.join(self.rankings)}), got {again.ranking!r}")


def _check_ranks_all(key: str, ranking: Ranking) -> None:
    if ranking == "entropy":
        raise InputError(f"{key}, by which sets are made, must not be entropy: it ranks only the neurons that fire often")


def data_needed(config: StudyConfig) -> list[SingleObjective]:
    """The objectives whose pairs are read: to learn and test on, or to compare firing over both."""
    both = "mixed" in config.objectives or "entropy" in config.rankings
    return [name for name in ("helpful", "harmless") if both or name in config.objectives]


def load_config(path: str | Path) -> StudyConfig:
    """Raises InputError, in one line, for a file that is no TOML, an unknown key or value, and what cannot be run."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML ({error})") from None
    try:
        return parse_config(table)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _no_value(value: Any) -> Any:
    raise InputError(f"no key takes a {type(value).__name__}, got {value}; text stands in quotes")


def parse_config(table: Mapping[str, Any]) -> StudyConfig:
    """A config from TOML's tables; errors as in `load_config`."""
    try:
        # As JSON: pydantic's strict reading of Python's own objects would want tuples and classes where a file has lists and tables.
        return TypeAdapter(StudyConfig).validate_json(json.dumps(table, default=_no_value))
    except ValidationError as error:
        raise InputError(_in_one_line(error.errors())) from None


_SAYS = {
    "unexpected_keyword_argument": "has no key {key!r}; it may have {allowed}{nearest}",
    "missing": "lacks {missing}",
    "literal_error": "must be one of {expected}, got {got!r}",
    "greater_than_equal": "must be at least {ge}, got {got}",
    "greater_than": "must be above {gt:g}, got {got}",
    "less_than_equal": "must be at most {le:g}, got {got}",
    "int_type": "must be a whole number, got {got!r}",
    "float_type": "must be a number, got {got!r}",
    "string_type": "must be text, got {got!r}",
    "bool_type": "must be true or false, got {got!r}",
    "tuple_type": "must be a list, got {got!r}",
    "dict_type": "must be a table, got {got!r}",
    "dataclass_type": "must be a table, got {got!r}",
}


def _in_one_line(errors: Sequence[ErrorDetails]) -> str:
    """What pydantic found first. An unknown key goes before one that is missing, which it may be meant for."""
    order = ("unexpected_keyword_argument", "missing")
    error = min(errors, key=lambda each: (*order, each["type"]).index(each["type"]))
    kind, loc, facts = error["type"], error["loc"], dict(error.get("ctx", {}))
    inside = loc[:-1] if kind in order else loc[:-2] if loc[-1:] == ("[key]",) else loc  # of a key, the table that it stands in
    place = ".".join(part for part in inside if isinstance(part, str) and part) or "the file"
    if kind == "value_error":  # one of ours
        return f"{place}: {facts['error']}" if loc else str(facts["error"])
    if kind == "unexpected_keyword_argument":
        key, allowed = str(loc[-1]), _keys_at(inside)
        near = get_close_matches(key, allowed, n=1)
        facts |= {"key": key, "allowed": ", ".join(allowed), "nearest": f"; did you mean {near[0]!r}?" if near else ""}
    if kind == "missing":
        facts["missing"] = ", ".join(str(each["loc"][-1]) for each in errors if each["type"] == kind and each["loc"][:-1] == inside)
    if kind == "literal_error":
        facts["expected"] = ", ".join(re.findall("'([^']*)'", facts["expected"]))
    said = _SAYS[kind].format(got=error["input"], **facts) if kind in _SAYS else error["msg"]
    return f"{place} {said}"


def _keys_at(place: Sequence[str | int]) -> list[str]:
    """Those that a table there may have."""
    kind: Any = StudyConfig
    for part in place:
        kind = (
            get_type_hints(kind)[str(part)] if dataclasses.is_dataclass(kind) else next(a for a in reversed(get_args(kind)) if a is not ...)
        )
    return [each.name for each in dataclasses.fields(kind) if each.name != "seed"]  # a training's comes from `seeds`


def located(source: Source, data: str | Path | None) -> Source:
    """The source with `$DATA` written out. Raises InputError where that is needed and no folder was given."""
    if DATA not in source.source:
        return source
    if data is None:
        raise InputError(f"{source.source}: give the folder that {DATA} stands for (--data)")
    return dataclasses.replace(source, source=source.source.replace(DATA, str(data)))


def is_hub(source: Source) -> bool:
    """Whether pairs come from the hub: neither embedded, nor a file."""
    return source.source != EMBEDDED and DATA not in source.source and not looks_local(source.source)
