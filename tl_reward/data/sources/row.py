"""A row as it was found, wherever that was."""

from typing import Any, NamedTuple

# Bytes that a row of a file may have, unpacked: more than any model reads, and little enough that a file made to fill memory cannot.
MOST_BYTES = 16 * 2**20


class SourceRow(NamedTuple):
    """`where` for messages, `default_id` for a row that names none. `split`: that which was chosen by the name of a file or a table, and
    which holds for a row that names none."""

    where: str
    default_id: str
    row: Any
    split: str | None = None
