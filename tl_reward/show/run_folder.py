"""What stands around every analysis: the run folder is checked before it, written after it, and its summary printed."""

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console

from tl_reward import parallel
from tl_reward.data.pairs import PreferencePair, pair_hash
from tl_reward.data.readers import GivenPairs, as_pairs
from tl_reward.errors import InputError
from tl_reward.results.disk.folder import check_run_folder
from tl_reward.results.provenance import provenance
from tl_reward.results.store import Results
from tl_reward.show.console import console
from tl_reward.show.run_tables import print_cautions, print_findings, summary
from tl_reward.terminal.progress import is_quiet


@contextmanager
def run_folder(
    out: str | Path,
    *,
    data: Mapping[str, GivenPairs] | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> Iterator[Results]:
    """Gives `Results` to record in; when the block ends, they are written to `out`, and their summary, what was
    found, and the folder's path are printed.

    Where the block raises, or is stopped, `out` is not written: what it has recorded by then is kept beside it, in `out`.unfinished, with
    `unfinished` in its provenance. Of several processes the first one writes and prints, and the others wait for it; they keep nothing.

    ```python
    with tl_reward.run_folder("runs/mine", data={"embedded, test": pairs}) as results:
        tl_reward.record_model(results, "mixed", model)
        tl_reward.record_scores(results, "mixed", "embedded, test", tl_reward.score(model, pairs))
    ```

    Args:
        out: the run folder to write.
        data: the pairs that the run reads, by the name of their data set; the provenance keeps their number and their hash. A warning
            says where scores or a discovery of a data set of that name were made of other pairs.
        seed: the seed of what is drawn at random, for the provenance.
        overwrite: replace a run folder that exists.

    Raises:
        InputError: before the block runs, as `check_run_folder`. After it, where `out` can no longer be written (the disk has become
            full, another process was faster): the results are then in a folder beside it, or in the one for temporary files, which the
            message names.
    """
    check_run_folder(out, overwrite=overwrite)
    read = {name: as_pairs(pairs) for name, pairs in (data or {}).items()}  # once: rows may come from a generator
    results = Results(provenance=provenance(seed=seed, data=read))
    try:
        yield results
    except BaseException:
        _keep(results, Path(out))
        raise
    _compare(results, read)
    try:
        folder = results.save(out, overwrite=overwrite)
    except InputError as error:
        raise InputError(f"{error}; {_rescued(results, Path(out))}") from None
    if not is_quiet():
        summary(results, console)
        print_findings(results, console)
    else:
        print_cautions(results, Console(stderr=True, markup=False, quiet=not parallel.is_first()))
    console.print(f"Run: {folder.resolve()}", soft_wrap=True)


def _compare(results: Results, data: Mapping[str, Sequence[PreferencePair]]) -> None:
    """Warns where what is recorded of a data set was read from other pairs than those that `data` says it is."""
    for section, key, named in (("scores", "ids", lambda pair: pair.id), ("discovery", "pair_hashes", pair_hash)):
        for name, entry in results.sections.get(section, {}).items():
            pairs = data.get(entry["dataset"])
            others = set() if pairs is None else set(entry[key]) - {named(pair) for pair in pairs}
            if others:
                warnings.warn(
                    f"{section} of {name}: {len(others):,} of {len(entry[key]):,} pairs are not among the {len(pairs or ()):,} that data= "
                    f"names {entry['dataset']!r}, so that the run's hash of the data is not that of the pairs read",
                    stacklevel=4,
                )


def _keep(recorded: Results, out: Path) -> None:
    """Writes what is recorded of a run that was cut short. Several processes would wait for one that has failed."""
    if parallel.count() > 1 or not recorded.sections:
        return
    kept = out.with_name(f"{out.name}.unfinished")
    with suppress(InputError, OSError):  # what stopped the run is what is said
        recorded.provenance["unfinished"] = True
        recorded.save(kept, overwrite=True)
        print(f"What was done by then is kept in {kept}", file=sys.stderr)


def _rescued(results: Results, out: Path) -> str:
    """Writes results to another place than the one that failed, and says where they are."""
    if not parallel.is_first():
        return "the first process says where the results are"
    results.provenance = json.loads(json.dumps(results.provenance, default=str))  # what is no JSON there must not fail once more
    name = f"{out.absolute().name[:100]}-rescued-{datetime.now():%Y%m%d-%H%M%S}"
    for parent in (out.absolute().parent, Path(tempfile.gettempdir())):
        try:
            results._write(parent / name, overwrite=False)  # not `save`, which waits for the other processes
            return f"the results are in {(parent / name).resolve()}"
        except InputError:
            continue
    return "nor could they be written beside it, or to the folder for temporary files"
