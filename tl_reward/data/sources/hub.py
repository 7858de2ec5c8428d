"""Rows of a dataset on the Hugging Face hub."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest

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
    parts = [_hub_folder(hub_id, name, folder, label, split) for folder, label in folders]
    # Row by row from each folder, so that a limit keeps some of every one.
    for rows in zip_longest(*parts):
        yield from (row for row in rows if row is not None)


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Where the hub cannot be reached, `datasets` looks at once into what was fetched before; by itself it would first try for 20 s."""
    from datasets import config
    from huggingface_hub import constants, get_session

    before = config.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception:  # of whichever library huggingface_hub uses
        config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _hub_folder(hub_id: str, name: str | None, folder: str | None, label: str | None, split: str) -> Iterator[SourceRow]:
    import datasets

    try:
        with _without_waiting():
            rows = datasets.load_dataset(hub_id, name, data_dir=folder, split=split)
    except Exception as error:  # datasets raises many kinds for "not there" and "no network"
        said = " ".join(str(error).split())[:200] or type(error).__name__  # the names to choose from are in the second line
        raise InputError(
            f"{hub_id}: not a local file, and the hub did not give it ({said}): look at the name, and at the network"
        ) from None
    place = "/".join(part for part in (name, folder, split) if part)
    for number, row in enumerate(rows, 1):
        yield SourceRow(f"{hub_id}/{place}:{number}", f"{place}:{number}", dict(row) | ({"objective": label} if label else {}))
