"""Rows that a caller in Python holds: a list of dicts, a generator, a DataFrame, a Hugging Face `Dataset`, an Arrow table."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from tl_reward.data.pairs import PreferencePair
from tl_reward.data.sources.row import SourceRow
from tl_reward.errors import InputError, shown

_PART = 1000  # rows of a table that are made at a time


@runtime_checkable
class DataFrame(Protocol):
    """A pandas or polars DataFrame, or an Arrow table: each has the names of its columns."""

    @property
    def columns(self) -> Any: ...


@runtime_checkable
class HubDataset(Protocol):
    """A Hugging Face `Dataset`."""

    @property
    def column_names(self) -> Any: ...


# Rows as Python holds them; what has no columns is a list of rows, or gives one after the other.
Rows = Iterable[Mapping[str, Any]] | DataFrame | HubDataset


def given_rows(rows: Any, split: str | None, source: str) -> Iterator[SourceRow]:
    """The rows that `rows` holds, numbered from 1.

    Raises:
        InputError: what holds no rows; a `PreferencePair` among them; several splits of which none was asked for.
    """
    for number, row in rows_of_table(rows, split, source):
        if isinstance(row, PreferencePair):
            raise InputError(f"{source}:{number}: is a PreferencePair already: give the functions pairs alone, or rows alone")
        yield SourceRow(f"{source}:{number}", f"{source}:{number}", row, split if holds_splits(rows) else None)


def rows_of_table(rows: Any, split: str | None, source: str) -> Iterator[tuple[int, Any]]:
    """Each row of a table or of an iterable as plain Python, with its number."""
    if holds_splits(rows):
        if split not in rows:
            said = f"no split {split!r}; it has" if split else "holds the splits"
            raise InputError(f"{source}: {said} {', '.join(map(str, rows))}: say which, with split={next(iter(rows))!r}")
        rows = rows[split]
    for number, row in enumerate(_each(rows, source), 1):
        try:
            plain = _plain(row)
        except RecursionError:
            raise InputError(f"{source}:{number}: lists in lists, too deep to read") from None
        yield number, plain


def holds_rows(value: Any) -> bool:
    """Whether a value is a table or an iterable of rows, and no pair and no name of a file."""
    if isinstance(value, (str, bytes, Mapping, PreferencePair)):
        return holds_splits(value)
    return isinstance(value, Iterable) or hasattr(value, "to_batches")


def holds_splits(value: Any) -> bool:
    """A `DatasetDict`: a mapping of names to tables."""
    return isinstance(value, Mapping) and len(value) > 0 and all(hasattr(part, "column_names") for part in value.values())


def _each(rows: Any, source: str) -> Iterator[Any]:
    _check_columns(rows, source)
    if hasattr(rows, "iloc") and hasattr(rows, "columns"):  # pandas
        names = [str(name) for name in rows.columns]
        for start in range(0, len(rows), _PART):
            part = rows.iloc[start : start + _PART]
            for cells in part.itertuples(index=False, name=None):
                yield {name: None if isinstance(cell, float) and cell != cell else cell for name, cell in zip(names, cells, strict=True)}
    elif hasattr(rows, "iter_rows") and hasattr(rows, "columns"):  # polars
        yield from rows.iter_rows(named=True)
    elif hasattr(rows, "to_batches") and hasattr(rows, "schema"):  # pyarrow
        yield from (row for part in rows.to_batches(max_chunksize=_PART) for row in part.to_pylist())
    elif not holds_rows(rows):
        hint = (
            "put the row in brackets" if isinstance(rows, Mapping) else "tl_reward.load_pairs reads a file" if isinstance(rows, str) else ""
        )
        hint = hint or "a list of dicts, a generator, a DataFrame or a Dataset holds rows"
        raise InputError(f"{source} must hold rows, got {shown(rows)} ({hint})")
    else:
        yield from rows


def _check_columns(rows: Any, source: str) -> None:
    """Raises InputError where two columns of a table have one name: which of them is meant is not said."""
    names = rows.column_names if isinstance(rows, HubDataset) else rows.columns if isinstance(rows, DataFrame) else ()
    seen: set[str] = set()
    for name in map(str, () if names is None else names):  # a dataset that is streamed may not know them
        if name in seen:
            raise InputError(f"{source}: two columns are called {name!r}; rename one")
        seen.add(name)


def _plain(value: Any) -> Any:
    """Without NumPy's arrays and numbers and pandas' mark for what is not there, in which tables hold lists and labels."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist()) if hasattr(value, "shape") else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value
