"""Rows of a dataset on the Hugging Face hub."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from tl_reward.data.pairs import Objective
from tl_reward.data.sources.row import SourceRow
from tl_reward.errors import InputError

# Bai et al. 2022 publish the objectives of HH-RLHF as folders of one dataset.
HH_DATA_DIRS = {
    "helpful": ("helpful-base", "helpful-online", "helpful-rejection-sampled"),
    "harmless": ("harmless-base",),
}
_SECONDS = 5  # for the hub to answer at all


def hub_rows(hub_id: str, objective: Objective | None, name: str | None, data_dir: str | None, split: str) -> Iterator[SourceRow]:
    """The rows of a split. `name` is a configuration of the dataset, `data_dir` a folder in it."""
    folders: Iterable[tuple[str | None, str | None]] = [(data_dir, None)]
    if hub_id == "Anthropic/hh-rlhf" and data_dir is None:
        wanted = list(HH_DATA_DIRS) if objective in (None, "mixed") else [objective]
        if wanted[0] not in HH_DATA_DIRS:
            raise InputError(f"{hub_id}: no {objective} pairs; it has {', '.join(HH_DATA_DIRS)}")
        folders = [(folder, label) for label in wanted for folder in HH_DATA_DIRS[label]]
    with _without_waiting():
        loaded = [(_loaded(hub_id, name, folder, split), folder, label) for folder, label in folders]
    parts = [_rows(rows, hub_id, "/".join(part for part in (name, folder, split) if part), label) for rows, folder, label in loaded]
    # Row by row from each folder, so that a limit keeps some of every one.
    for rows in zip_longest(*parts):
        yield from (row for row in rows if row is not None)


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Where the hub cannot be reached, `datasets` looks at once into what was fetched before; by itself it would first try for 20 s."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or not _reached()
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _reached() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception:  # of whichever library huggingface_hub uses
        return False
    return True


def _loaded(hub_id: str, name: str | None, folder: str | None, split: str) -> Iterable[Any]:
    import datasets

    try:
        return datasets.load_dataset(hub_id, name, data_dir=folder, split=split)
    except Exception as error:  # datasets raises many kinds for "not there" and "no network"
        said = " ".join(str(error).split())[:200] or type(error).__name__  # the names to choose from are in the second line
        raise InputError(
            f"{hub_id}: not a local file, and the hub did not give it ({said}): look at the name, and at the network"
        ) from None


def _rows(rows: Iterable[Any], hub_id: str, place: str, label: str | None) -> Iterator[SourceRow]:
    for number, row in enumerate(rows, 1):
        yield SourceRow(f"{hub_id}/{place}:{number}", f"{place}:{number}", dict(row) | ({"objective": label} if label else {}))
