"""Preference pairs from local files, from the Hugging Face hub, from rows in Python, and from the package itself."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NoReturn

from tl_reward.arguments import check_argument, is_whole
from tl_reward.data.messages import printable
from tl_reward.data.pairs import BadPair, Objective, PreferencePair, check_unique_ids, faults_of
from tl_reward.data.reading import Label
from tl_reward.data.schemas.registry import goes_with, pairs_of_rows
from tl_reward.data.sources.given import DataFrame, HubDataset, Rows, given_rows, holds_rows, holds_splits
from tl_reward.data.sources.hub import HH_DATA_DIRS, hub_rows
from tl_reward.data.sources.local import SUFFIXES, local_rows, looks_local, short_name
from tl_reward.data.sources.row import MOST_BYTES, SourceRow
from tl_reward.errors import InputError, check_keywords, shown

__all__ = (
    "COLUMNS",
    "EMBEDDED",
    "EMBEDDED_FILE",
    "HH_DATA_DIRS",
    "MOST_BYTES",
    "SUFFIXES",
    "GivenPairs",
    "as_pairs",
    "load_pairs",
    "looks_local",
    "pairs_from",
    "short_name",
)

# Short pairs written for this project, half of each objective in the split "find" and half in "test".
EMBEDDED = "embedded"
EMBEDDED_FILE = Path(str(files("tl_reward"))) / "data" / "embedded_pairs.jsonl"
COLUMNS = ("prompt", "chosen", "rejected", "system", "id", "objective", "subset", "split")  # what `columns` may name
OnBad = Literal["error", "drop"]
GivenPairs = Sequence[PreferencePair] | Rows  # what stands in the place of pairs wherever a function takes some


def load_pairs(
    source: Any,
    *,
    objective: Objective | None = None,
    subset: str | None = None,
    name: str | None = None,
    data_dir: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "error",
) -> list[PreferencePair]:
    """Reads preference pairs from a local file or folder, from a dataset on the Hugging Face hub, or from rows in Python.

    The schema of a row is told by its keys: see the table in docs/how-to/data.md. Files are read row by row, and no further than `limit`
    asks for. One warning says how many pairs were left out, by reason (votes that are ties too), and how many are odd: two sides of
    different prompts, a blank prompt, a pair that is there more than once.

    Args:
        source: a file ending in one of `SUFFIXES`, a folder of such files, a hub id such as `Anthropic/hh-rlhf`, "embedded", or what
            `pairs_from` takes.
        objective: keeps the rows of this objective, and marks with it those that name none, which the warning counts. Where rows name
            others alone, it is refused. "mixed" keeps all. For `Anthropic/hh-rlhf` it also chooses the folders (`HH_DATA_DIRS`). Where a
            schema rates answers by several attributes (HelpSteer: helpfulness, correctness, coherence, complexity, verbosity;
            UltraFeedback: helpfulness, instruction_following, honesty, truthfulness), the name of one gives the pairs in which the chosen
            answer has more of it, and marks them with it.
        subset: keeps the rows of this subset.
        name: which configuration of a hub dataset.
        data_dir: which folder of a hub dataset.
        split: which split of a hub dataset (None is "test"), or of a folder whose files' names tell theirs. Of a file, keeps the rows of
            this split, and those that name none, which the warning counts; where rows name others alone, it is refused. None keeps all
            rows of a file, of the embedded pairs both splits.
        limit: keeps the first `limit` rows; a row of several pairs counts as one, and keeps all of them.
        columns: the names that a row has for `COLUMNS`, as in {"prompt": "q", "chosen": "good", "rejected": "bad"}.
        on_bad: "error" stops at a pair with an empty side or two equal ones, "drop" leaves such pairs out.

    Raises:
        InputError: a missing or empty file; malformed JSON or text that is no UTF-8 (with file and row); a row of more than `MOST_BYTES`;
            an unknown schema, objective, subset, split or column; an image; a bad pair; two pairs with one id.
    """
    wanted = Wanted(objective, subset, split, limit, columns, on_bad)
    if isinstance(source, (str, Path)) and not str(source).strip():
        raise InputError(f'pairs are read from a file, a hub id such as Anthropic/hh-rlhf, or "{EMBEDDED}"; got {str(source)!r}')
    if holds_rows(source):
        return _pairs(given_rows(source, split, "rows"), "rows", wanted)
    if not isinstance(source, (str, Path)):
        raise InputError(f"source must be a file, a folder, a hub id or rows, got {shown(source)} (put one row in brackets)")
    if source == EMBEDDED:
        source = EMBEDDED_FILE
    if looks_local(source):
        return _pairs(local_rows(Path(source), split), str(source), wanted)
    rows = hub_rows(str(source), objective, name, data_dir, split or "test")
    return _pairs(rows, str(source), replace(wanted, split=None))  # of the hub, the split was asked for


def pairs_from(
    rows: Any,
    *,
    source: str = "rows",
    objective: Objective | None = None,
    subset: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "error",
) -> list[PreferencePair]:
    """Makes preference pairs of rows: a list of dicts, a generator, a pandas or polars DataFrame, a Hugging Face `Dataset`, an Arrow table.

    >>> [pair] = pairs_from([{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}])
    >>> pair.id, pair.chosen[-1].content
    ('rows:1', 'Hello!')

    Args:
        rows: each of one of the schemas of `load_pairs`.
        source: what messages and the ids of rows without one call them.
        objective: as in `load_pairs`, and so are subset, limit, columns and on_bad.
        split: as in `load_pairs`; it also chooses from a `DatasetDict`.

    Raises:
        InputError: what holds no rows; all else as `load_pairs`, with the number of the row, from 1.
    """
    return _pairs(given_rows(rows, split, source), source, Wanted(objective, subset, split, limit, columns, on_bad))


READS_A_FILE = "tl_reward.load_pairs reads a file"
ROWS_ALONE = "give pairs alone, or rows alone"


def as_pairs(given: Any) -> list[PreferencePair]:
    """Pairs as they are, or made of rows as `pairs_from` makes them: what every function does with the pairs that it is given.

    Raises:
        InputError: nothing in it, or what is no list of pairs and holds no rows; pairs and rows in one list; rows as `pairs_from`.
    """
    if holds_splits(given):
        names: list[Any] = [*given]
        raise InputError(f"pairs holds the splits {', '.join(map(str, names))}: give one of them, as in pairs[{names[0]!r}]")
    if not holds_rows(given):
        alone = "put it in brackets" if isinstance(given, PreferencePair) else "put one row in brackets"
        hint = alone if isinstance(given, (PreferencePair, Mapping)) else READS_A_FILE
        raise InputError(f"pairs must be a list of PreferencePair, or rows, got {shown(given)} ({hint})")
    if isinstance(given, (DataFrame, HubDataset)):
        return pairs_from(given)
    each = iter(given)
    start = [*islice(each, 1)]
    if not start:
        raise InputError("pairs must not be empty" + (" (what gives rows one by one gives them once: make a list of it)" * (each is given)))
    if not isinstance(start[0], PreferencePair):
        return pairs_from(chain(start, each))
    pairs: list[Any] = [*start, *each]
    for i, pair in enumerate(pairs):
        if not isinstance(pair, PreferencePair):
            raise InputError(f"pairs[{i}] must be a PreferencePair, got {shown(pair)} ({ROWS_ALONE})")
    return pairs


@dataclass(frozen=True)
class Wanted:
    """Which rows to keep, and how to read them."""

    objective: Objective | None = None
    subset: str | None = None
    split: str | None = None
    limit: int | None = None
    columns: Mapping[str, str] | None = None
    on_bad: OnBad = "error"

    def __post_init__(self) -> None:
        check_argument("objective", self.objective, Objective | None)
        check_argument("on_bad", self.on_bad, OnBad)
        if self.limit is not None and (not is_whole(self.limit) or self.limit < 1):
            raise InputError(f"limit must be a whole number of at least 1, got {shown(self.limit)}")
        columns: Any = {} if self.columns is None else self.columns
        if not isinstance(columns, Mapping) or not all(isinstance(name, str) for name in (*columns, *columns.values())):
            raise InputError(f'columns must be names, as in {{"prompt": "question"}}, got {shown(columns)}')
        if columns and not set(columns) & set(COLUMNS) and set(columns.values()) <= set(COLUMNS):
            ours, theirs = next(iter((ours, theirs) for theirs, ours in columns.items()))
            raise InputError(f'columns is the other way round: columns={{"{ours}": "{theirs}"}} says which column holds the {ours}')
        check_keywords(columns, COLUMNS, "columns")


@dataclass
class _Found:
    """What a source holds besides the pairs that are kept."""

    split: Label
    objective: Label
    left_out: Counter[str] = field(default_factory=Counter)  # whole rows
    undecided: Counter[str] = field(default_factory=Counter)  # comparisons of a row
    read: int = 0
    objectives: set[str] = field(default_factory=set)
    subsets: set[str] = field(default_factory=set)


def _pairs(rows: Iterable[SourceRow], source: str, wanted: Wanted) -> list[PreferencePair]:
    found = _Found(Label("split", wanted.split), Label("objective", None if wanted.objective == "mixed" else wanted.objective))
    pairs: list[PreferencePair] = []
    kept = 0
    for several in _together(_of_split(rows, wanted, found)):
        before = len(pairs)
        for pair in _read(several, wanted, found):
            if not found.objective.takes(pair.objective):
                continue
            if wanted.objective not in (None, "mixed"):
                pair = replace(pair, objective=wanted.objective)
            found.subsets.add(pair.subset or "")
            if wanted.subset in (None, pair.subset):
                pairs.append(pair)
        kept += len(pairs) > before
        if kept == wanted.limit:  # a row of several pairs counts as one, and is kept whole
            break
    for label in (found.split, found.objective):
        label.check(printable(source))
    if not pairs:
        raise InputError(f"{source}: {printable(_nothing(found, wanted))}")
    check_unique_ids(pairs, source)
    _say(source, pairs, found)
    return pairs


def _of_split(rows: Iterable[SourceRow], wanted: Wanted, found: _Found) -> Iterator[SourceRow]:
    """The rows that are of the split, or name none; under the names that schemas know."""
    for source in rows:
        if wanted.columns:
            source = source._replace(row=_renamed(source.row, wanted.columns, source.where))
        if not isinstance(source.row, Mapping) or found.split.takes(source.row.get("split") or source.split):
            yield source


def _renamed(row: Any, columns: Mapping[str, str], where: str) -> Any:
    """What a row holds of `COLUMNS`, each from where `columns` says, or else from the key of its own name."""
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: a row must have columns, got {type(row).__name__}")
    lacking = next((theirs for theirs in columns.values() if theirs not in row), None)
    if lacking is not None:
        raise InputError(f"{where}: no column {lacking!r}; it has {printable(', '.join(map(str, row))[:300])}")
    also = () if "subset" in columns else ("domain",)  # another name of the subset, which needs no telling
    return {ours: row[columns.get(ours, ours)] for ours in (*COLUMNS, *also) if columns.get(ours, ours) in row}


def _together(rows: Iterable[SourceRow]) -> Iterator[list[SourceRow]]:
    """Each row by itself; rows that are answers to one prompt together, where the schema has them in consecutive rows."""
    held: list[SourceRow] = []
    shared: Any = None
    size = 0
    for source in rows:
        mark = goes_with(source.row)
        if held and (mark is None or mark != shared):
            yield held
            held = []
        if mark is None:
            yield [source]
            continue
        size = (size if held else 0) + sum(len(value) for value in source.row.values() if isinstance(value, str))
        if size > MOST_BYTES:
            raise InputError(f"{source.where}: the rows of a prompt may have {MOST_BYTES:,} characters, and these have more")
        held.append(source)
        shared = mark
    if held:
        yield held


def _read(sources: Sequence[SourceRow], wanted: Wanted, found: _Found) -> list[PreferencePair]:
    """The pairs of a row, or of rows that are read together; none where it is bad and left out."""
    first = sources[0]
    where = first.where + (f"-{sources[-1].where.rpartition(':')[2]}" if len(sources) > 1 else "")

    def refuse(message: object) -> NoReturn:
        raise InputError(f"{where}: {message}") from None

    try:
        pairs, left_out = pairs_of_rows([source.row for source in sources], first.default_id, where, wanted.objective)
    except BadPair as error:
        if wanted.on_bad == "error":
            refuse(f'{error} (such pairs can be dropped: on_bad="drop")')
        found.left_out[error.reason] += 1
        return []
    except InputError as error:
        refuse(error)
    except RecursionError:
        refuse("lists in lists, too deep to read")
    found.undecided.update(left_out)
    found.read += len(pairs)
    found.objectives.update(pair.objective for pair in pairs if pair.objective)
    return pairs


def _nothing(found: _Found, wanted: Wanted) -> str:
    """Why no pair is left of a source."""
    if not found.read:
        counts = [("rows", found.left_out), ("comparisons", found.undecided)]
        bad = ", ".join(f"{count} {what} where {reason}" for what, each in counts for reason, count in each.items())
        return "no pairs found in it" + (f" in split {wanted.split!r}" if wanted.split else "") + (f"; left out: {bad}" if bad else "")
    if not found.subsets:
        return f"no {wanted.objective} pairs; it has {', '.join(sorted(found.objectives))}"
    return f"no subset {wanted.subset!r}; it has {', '.join(sorted(found.subsets - {''})) or 'no subsets'}"


def _say(source: str, pairs: Sequence[PreferencePair], found: _Found) -> None:
    said = [f"{count:,} rows left out where {reason}" for reason, count in found.left_out.items()]
    said += [f"{count:,} comparisons left out where {reason}" for reason, count in found.undecided.items()]
    said += [*found.split.said(), *found.objective.said()]
    said += [f"{count:,} of {len(pairs):,} pairs {what}" for what, count in faults_of(pairs).items()]
    if said:
        warnings.warn(f"{source}: {'; '.join(said)}", stacklevel=4)
