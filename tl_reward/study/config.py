"""What a reproduction runs: a TOML file, read strictly into frozen dataclasses."""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tl_reward.data.readers import EMBEDDED, looks_local
from tl_reward.errors import InputError
from tl_reward.model import embedded
from tl_reward.model.training import TrainingConfig
from tl_reward.neurons import check_fraction
from tl_reward.study.benchmarks import OBJECTIVE_TEST
from tl_reward.study.matrix import Conventions

ObjectiveName = Literal["helpful", "harmless", "mixed"]
Ranking = Literal["mean", "abs_mean", "rms", "probability", "entropy", "change", "random"]
DATA = "$DATA"
_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


@dataclass(frozen=True)
class Base:
    """A language model that reward models are trained from.

    Attributes:
        name: what cells and tables call it. A claim about one of the study's models is judged by the bases whose name begins with its.
        source: a folder, a hub id, or the embedded `embedded.BASE`.
        shipped: the embedded adapters count as its reward models of seed 0.
    """

    name: str
    source: str
    shipped: bool = False


@dataclass(frozen=True)
class Source:
    """Preference pairs: a file (`$DATA/…` is under the data folder), a hub id, or "embedded". The rest is as in `readers.load_pairs`;
    `objective` is for the pairs of a benchmark that do not name theirs."""

    source: str
    data_dir: str | None = None
    split: str | None = None
    subset: str | None = None
    objective: Literal["helpful", "harmless"] | None = None
    limit: int | None = None


@dataclass(frozen=True)
class ObjectiveData:
    """The pairs of one objective; a mixed model is trained and tested on those of both."""

    train: tuple[Source, ...]
    test: tuple[Source, ...]


@dataclass(frozen=True)
class Limits:
    """How much of the data is used; None is all. Of several sources of an objective, rows are taken in turn.

    Attributes:
        rows: the first rows of each sub-task, and of each objective's test pairs (a best-of-n row counts as one).
        edited: how many of these edited models are tested on, by benchmark ("objective test": an objective's test pairs); one that is
            not named is tested on all. 0: not at all. A model is scored once, but edited dozens of times.
        discovery: the first training pairs of each objective, on which neurons are found.
    """

    rows: int | None = None
    edited: Mapping[str, int] = field(default_factory=dict)
    discovery: int | None = None


@dataclass(frozen=True)
class Retrain:
    """Models that are trained again without their top neurons, on a random sample of `pairs` training pairs (None: all).

    Attributes:
        kinds: "masked" and "pruned" (`training.train`).
        fractions: shares of all neurons; 0 is a control that keeps all, trained alike.
        objectives, ranking: of which models, and the ranking that says which neurons.
    """

    kinds: tuple[Literal["masked", "pruned"], ...] = ()
    fractions: tuple[float, ...] = ()
    objectives: tuple[ObjectiveName, ...] = ()
    ranking: Ranking = "mean"
    pairs: int | None = None


@dataclass(frozen=True)
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
            (`study.conventions`).
    """

    bases: tuple[Base, ...]
    objectives: tuple[ObjectiveName, ...]
    seeds: tuple[int, ...]
    training: TrainingConfig
    data: Mapping[Literal["helpful", "harmless"], ObjectiveData]
    rankings: tuple[Ranking, ...]
    fractions: tuple[float, ...]
    benchmarks: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    set_fractions: tuple[float, ...] = ()
    patch_fractions: tuple[float, ...] = ()
    draws: int = 3
    limits: Limits = field(default_factory=Limits)
    retrain: Retrain = field(default_factory=Retrain)
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    max_length: int | None = None
    conventions: Conventions = "ours"


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


def parse_config(table: Mapping[str, Any]) -> StudyConfig:
    """A config from TOML's tables; errors as in `load_config`."""
    training = table.get("training")
    if isinstance(training, Mapping) and "seed" in training:
        raise InputError("training takes no seed: list them under seeds")
    config = _read(StudyConfig, table, "")
    _check(config)
    return config


def _check(config: StudyConfig) -> None:
    for key in ("bases", "objectives", "seeds", "rankings"):
        values = getattr(config, key)
        names = [value.name if isinstance(value, Base) else value for value in values]
        if not names or len(set(names)) < len(names):
            raise InputError(f"{key} must name one or more, each once, got {', '.join(map(str, names)) or 'none'}")
    for base in config.bases:
        _check_name("bases", base.name)
        hub = base.source.count("/") == 1 and not base.source.startswith((".", "/"))
        known = hub or base.source == embedded.BASE or Path(base.source).is_dir()
        if not known:
            raise InputError(f"bases: model {base.source!r} is no folder, no hub id (owner/name), and not embedded ({embedded.BASE})")
        if base.shipped and base.source != embedded.BASE:
            raise InputError(f"bases: the embedded adapters were trained from {embedded.BASE}; {base.name} is {base.source}")
    for name in config.benchmarks:
        _check_name("benchmarks", name)
    missing = [name for name in data_needed(config) if name not in config.data]
    if missing:
        compared = "; the ranking entropy compares both objectives" if "entropy" in config.rankings else ""
        raise InputError(f"data.{missing[0]} is missing; objectives are {', '.join(config.objectives)}{compared}")
    listed = {f"data.{name}.{part}": getattr(config.data[name], part) for name in data_needed(config) for part in ("train", "test")}
    for key, sources in (listed | {f"benchmarks.{name}": sources for name, sources in config.benchmarks.items()}).items():
        if not sources:
            raise InputError(f"{key} must list one or more sources of pairs, got none")
    tests = (OBJECTIVE_TEST, *config.benchmarks)
    unknown = [name for name in config.limits.edited if name not in tests]
    if unknown:
        raise InputError(f"limits.edited names no benchmark {unknown[0]!r}; there are {', '.join(tests)}")
    retrain = config.retrain
    for key, values in {
        "fractions": config.fractions, "set_fractions": config.set_fractions, "patch_fractions": config.patch_fractions,
        "retrain.fractions": [value for value in retrain.fractions if value != 0],
    }.items():  # fmt: skip
        if len(set(values)) < len(values):
            raise InputError(f"{key} must name each share once, got {', '.join(map(str, values))}")
        for value in values:
            try:
                check_fraction(value)
            except InputError as error:
                raise InputError(f"{key}: {error}") from None
    trio = set(get_args(ObjectiveName)) - set(config.objectives)
    if (config.set_fractions or config.patch_fractions) and trio:
        raise InputError(f"set_fractions and patch_fractions need all three objectives; objectives lacks {', '.join(sorted(trio))}")
    if set(retrain.objectives) - set(config.objectives):
        raise InputError(
            f"retrain.objectives must be among objectives ({', '.join(config.objectives)}), got {', '.join(retrain.objectives)}"
        )
    of_all = {"rankings[0]": config.rankings[0]} if config.set_fractions or config.patch_fractions else {}
    of_all |= {"retrain.ranking": retrain.ranking} if retrain.kinds else {}
    for key, ranking in of_all.items():
        if ranking == "entropy":
            raise InputError(f"{key}, by which sets are made, must not be entropy: it ranks only the neurons that fire often")
    if retrain.kinds and retrain.ranking not in config.rankings:
        raise InputError(f"retrain.ranking must be one of rankings ({', '.join(config.rankings)}), got {retrain.ranking!r}")
    least = {"draws": (config.draws, 0), "limits.rows": (config.limits.rows, 1), "limits.discovery": (config.limits.discovery, 1)}
    least |= {f"limits.edited.{name}": (rows, 0) for name, rows in config.limits.edited.items()}
    least |= {"max_length": (config.max_length, 1), "retrain.pairs": (retrain.pairs, 1)}
    for key, (value, low) in least.items():
        if value is not None and value < low:
            raise InputError(f"{key} must be at least {low}, got {value}")


def data_needed(config: StudyConfig) -> list[Literal["helpful", "harmless"]]:
    """The objectives whose pairs are read: to learn and test on, or to compare firing over both."""
    both = "mixed" in config.objectives or "entropy" in config.rankings
    return [name for name in ("helpful", "harmless") if both or name in config.objectives]


def _check_name(key: str, name: str) -> None:
    """Names become folders."""
    if not name or not all(c.isalnum() or c in "-_. " for c in name) or name.startswith("."):
        raise InputError(f"{key}: a name may hold letters, digits, spaces, '-', '_' and '.', got {name!r}")


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value of a declared type. Raises InputError that names the place and what is allowed there."""
    place = where or "the file"
    origin, args = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):  # "| None": TOML has no null, so a key that is there has a value
        return _read(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is Literal:
        if value not in args:
            raise InputError(f"{place} must be one of {', '.join(args)}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{place} must be a list, got {value!r}")
        return tuple(_read(args[0], item, where) for item in value)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"{place} must be a table, got {value!r}")
        return {_read(args[0], key, where): _read(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _table(kind, {"source": value} if kind is Source and isinstance(value, str) else value, where)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise InputError(f"{place} must be {_NAMES[kind.__name__]}, got {value!r}")
    return value


def _table(kind: Any, value: Any, where: str) -> Any:
    place = where or "the file"
    if not isinstance(value, Mapping):
        raise InputError(f"{place} must be a table, got {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    unknown = [key for key in value if key not in fields]
    if unknown:
        raise InputError(f"{place} has no key {unknown[0]!r}; it may have {', '.join(name for name in fields if name != 'seed')}")
    missing = [
        name
        for name, item in fields.items()
        if name not in value and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{place} lacks {', '.join(missing)}")
    return kind(**{name: _read(hints[name], item, f"{where}.{name}".lstrip(".")) for name, item in value.items()})


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
