"""Results on disk: a run folder with `results.json`, `tensors.safetensors`, and where they came from.

A run holds sections (`sections.py` says what is in each). Each maps a name (a reward model, or a model and a data set) to plain JSON;
per-neuron tensors are beside it, under `section/name/…`. No pickle is written or read.

What is written has the number `FORMAT`. It rises only where a reader of the number before would read something wrong: a key or a tensor
that means something else, or is gone. What is new gets a key of its own, `NotRequired` in its type, without a rise: older readers do not
see it, and newer ones do without it. Whoever raises `FORMAT` adds the step from the number before to `_MIGRATIONS`, and a run of the
number before to the tests; `Results.load` takes these steps in memory, and leaves the folder as it is. A run of a number that no step
leads from is refused: it is never read in part.
"""

import html
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tl_reward import parallel
from tl_reward.errors import InputError, first_line
from tl_reward.results.sections import (
    SECTIONS,
    AblationEntry,
    AttributionEntry,
    DiscoveryEntry,
    EffectsEntry,
    ExamplesEntry,
    LensEntry,
    ModelPatchingEntry,
    OverlapEntry,
    PatchingEntry,
    ScoresEntry,
    Sections,
    SetsEntry,
    StudyEntry,
    TensionEntry,
    fault_of,
)

FORMAT = 2
_JSON, _TENSORS = "results.json", "tensors.safetensors"


class Stored(NamedTuple):
    """A run folder as it was read: JSON, tensors by `section/name/…`, and where they came from."""

    sections: dict[str, Any]
    tensors: dict[str, Tensor]
    provenance: dict[str, Any]


# From a format to the next one.
_MIGRATIONS: dict[int, Callable[[Stored], Stored]] = {}


@dataclass(eq=False)
class Results:
    """What one or more analyses found.

    Attributes:
        sections: section → name → JSON, of the sections that it has.
        tensors: `section/name/…` → tensor.
        provenance: versions, seed, commit, data hashes, command.
    """

    sections: Sections = field(default_factory=Sections)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def add(self, section: str, name: str, value: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Adds one entry. Tensors are stored under `section/name/`."""
        if section not in SECTIONS:
            raise InputError(f"section must be one of {', '.join(SECTIONS)}, got {section!r}")
        entries = self._untyped.setdefault(section, {})
        if name in entries:
            raise InputError(f"this run has {section} of {name} already")
        entries[name] = dict(value)
        for key, tensor in (tensors or {}).items():
            # A copy: what the caller edits later is not part of the result, and no two entries share memory.
            self.tensors[f"{section}/{name}/{key}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)

    @overload
    def section(self, name: Literal["scores"]) -> dict[str, ScoresEntry]: ...
    @overload
    def section(self, name: Literal["discovery"]) -> dict[str, DiscoveryEntry]: ...
    @overload
    def section(self, name: Literal["examples"]) -> dict[str, ExamplesEntry]: ...
    @overload
    def section(self, name: Literal["attribution"]) -> dict[str, AttributionEntry]: ...
    @overload
    def section(self, name: Literal["effects"]) -> dict[str, EffectsEntry]: ...
    @overload
    def section(self, name: Literal["tension"]) -> dict[str, TensionEntry]: ...
    @overload
    def section(self, name: Literal["ablation"]) -> dict[str, AblationEntry]: ...
    @overload
    def section(self, name: Literal["sets"]) -> dict[str, SetsEntry]: ...
    @overload
    def section(self, name: Literal["overlap"]) -> dict[str, OverlapEntry]: ...
    @overload
    def section(self, name: Literal["patching"]) -> dict[str, PatchingEntry]: ...
    @overload
    def section(self, name: Literal["model_patching"]) -> dict[str, ModelPatchingEntry]: ...
    @overload
    def section(self, name: Literal["lens"]) -> dict[str, LensEntry]: ...
    @overload
    def section(self, name: Literal["study"]) -> dict[str, StudyEntry]: ...
    @overload
    def section(self, name: str) -> dict[str, Any]: ...
    def section(self, name: str) -> Mapping[str, Any]:
        """The entries of a section, by name. Raises InputError where this run has no such section."""
        if name not in self.sections:
            raise InputError(f"this run has no {name}; it has {', '.join(self.sections) or 'nothing'}")
        return self._untyped[name]

    @overload
    def entry(self, section: Literal["scores"], name: str) -> ScoresEntry: ...
    @overload
    def entry(self, section: Literal["discovery"], name: str) -> DiscoveryEntry: ...
    @overload
    def entry(self, section: Literal["examples"], name: str) -> ExamplesEntry: ...
    @overload
    def entry(self, section: Literal["attribution"], name: str) -> AttributionEntry: ...
    @overload
    def entry(self, section: Literal["effects"], name: str) -> EffectsEntry: ...
    @overload
    def entry(self, section: Literal["tension"], name: str) -> TensionEntry: ...
    @overload
    def entry(self, section: Literal["ablation"], name: str) -> AblationEntry: ...
    @overload
    def entry(self, section: Literal["sets"], name: str) -> SetsEntry: ...
    @overload
    def entry(self, section: Literal["overlap"], name: str) -> OverlapEntry: ...
    @overload
    def entry(self, section: Literal["patching"], name: str) -> PatchingEntry: ...
    @overload
    def entry(self, section: Literal["model_patching"], name: str) -> ModelPatchingEntry: ...
    @overload
    def entry(self, section: Literal["lens"], name: str) -> LensEntry: ...
    @overload
    def entry(self, section: Literal["study"], name: str) -> StudyEntry: ...
    @overload
    def entry(self, section: str, name: str) -> Any: ...
    def entry(self, section: str, name: str) -> Mapping[str, Any]:
        """Raises InputError where the section has no such entry; the message names those that it has."""
        entries = self.section(section)
        if name not in entries:
            raise InputError(f"this run has no {section} of {name!r}; it has {', '.join(entries)}")
        return entries[name]

    def names(self) -> dict[str, list[str]]:
        """Section → the names of its entries."""
        return {section: list(entries) for section, entries in self._untyped.items()}

    def models(self) -> set[str]:
        """What entries call the reward models that they are about."""
        told = (entry.get("model") for entries in self._untyped.values() for entry in entries.values())
        return {model for model in told if isinstance(model, str)} | set(self.sections.get("discovery", {}))

    @property
    def _untyped(self) -> dict[str, dict[str, Any]]:
        return cast(dict[str, dict[str, Any]], self.sections)

    def tensor(self, section: str, name: str, key: str) -> Tensor:
        full = f"{section}/{name}/{key}"
        if full not in self.tensors:
            have = sorted(key.removeprefix(f"{section}/") for key in self.tensors if key.startswith(f"{section}/"))
            raise InputError(f"this run has no {full}; {section} has {', '.join(have) or 'nothing'}")
        return self.tensors[full]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the run folder, all of it or nothing. Of several processes the first one writes, and the others wait for it.

        Raises:
            InputError: the folder exists and `overwrite` is off, or it holds something else than a run.
        """
        folder = Path(folder)
        parallel.on_first(lambda: self._write(folder, overwrite))
        return folder

    def _write(self, folder: Path, overwrite: bool) -> None:
        check_run_folder(folder, overwrite=overwrite)
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            document = {"format": FORMAT, "provenance": self.provenance, "sections": self.sections}
            (scratch / _JSON).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            save_file(self.tensors, scratch / _TENSORS)
            scratch.chmod(0o755)
            _swap(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """Raises InputError where the folder is no run, a damaged one, or one of a format that this version does not read."""
        folder = Path(folder)
        if not (folder / _JSON).is_file():
            raise InputError(f"{folder}: no run folder ({_JSON} is missing)")
        try:
            document = json.loads((folder / _JSON).read_text(encoding="utf-8"))
            steps = _steps_from(document["format"])
            if steps is None:
                raise InputError(f"{folder}: {_refusal(document)}")
            stored = Stored(document["sections"], load_file(folder / _TENSORS), document["provenance"])
            for step in steps:
                stored = step(stored)
            if fault := fault_of(stored.sections):
                raise InputError(f"{folder}: run is damaged, or no run of tl_reward ({fault})")
            return cls(cast(Sections, stored.sections), stored.tensors, stored.provenance)
        except KeyError as error:
            raise InputError(f"{folder}: run is damaged ({_JSON} has no {error})") from None
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, OSError, SafetensorError) as error:
            raise InputError(f"{folder}: run is damaged ({first_line(error)})") from None

    @classmethod
    def merge(cls, runs: Sequence["Results"]) -> "Results":
        """Several runs as one. Of two entries of one name at two sites, the later one's name tells its site. Raises InputError where two
        hold the same entry; the provenance is the first one's."""
        merged = cls(provenance=runs[0].provenance)
        for run in runs:
            for section, entries in run._untyped.items():
                own = merged._untyped.setdefault(section, {})
                for name in sorted(set(entries) & set(own)):
                    site = entries[name].get("site")
                    if site is None or site == own[name].get("site") or f"{name} at {site}" in own.keys() | entries.keys():
                        raise InputError(f"two runs hold {section} of {name}")
                    run = run._with_name(section, name, f"{name} at {site}")
                own.update(run._untyped[section])
            merged.tensors |= run.tensors
        return merged

    def _with_name(self, section: str, name: str, new: str) -> "Results":
        """A copy in which an entry has another name; those of other names that begin like it keep theirs."""
        longer = tuple(f"{section}/{other}/" for other in self._untyped[section] if other.startswith(f"{name}/"))
        old = f"{section}/{name}/"
        own = {key for key in self.tensors if key.startswith(old) and not key.startswith(longer)}
        tensors = {f"{section}/{new}/{key.removeprefix(old)}" if key in own else key: value for key, value in self.tensors.items()}
        entries = {new if key == name else key: entry for key, entry in self._untyped[section].items()}
        return Results(cast(Sections, {**self._untyped, section: entries}), tensors, self.provenance)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(section)}</td><td>{html.escape(', '.join(names))}</td></tr>" for section, names in self.names().items()
        )
        return f"<table><tr><th>section</th><th>entries</th></tr>{rows}</table>"


def _steps_from(number: int) -> list[Callable[[Stored], Stored]] | None:
    """What leads from a format to this one, in order; None where nothing does."""
    steps = []
    while number != FORMAT:
        if number not in _MIGRATIONS:
            return None
        steps.append(_MIGRATIONS[number])
        number += 1
    return steps


def _refusal(document: Mapping[str, Any]) -> str:
    versions = document["provenance"].get("versions") if isinstance(document["provenance"], Mapping) else None
    writer = versions.get("tl_reward") if isinstance(versions, Mapping) else None
    reads = ", ".join(str(number) for number in (*_MIGRATIONS, FORMAT))
    return f"run has format {document['format']}{f' (of tl_reward {writer})' if writer else ''}, this version reads {reads}"


def _swap(new: Path, folder: Path) -> None:
    """Puts a new folder in the place of an old one; the old one is back in its place if that fails."""
    old = Path(f"{new}-old")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_run_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Says no before an hour of work, not after it: raises InputError where `save` would."""
    folder = Path(folder)
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise InputError(f"{folder} cannot be made: {parent} is a file")
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(f"{folder} exists; choose another folder, or replace it with overwrite (--overwrite)")
    contents = {item.name for item in folder.iterdir()} if folder.is_dir() else {folder.name}
    foreign = sorted(contents - {_JSON, _TENSORS, "dashboard.html", "dashboard.data"})
    if foreign:
        raise InputError(f"{folder} is not overwritten: it holds {', '.join(foreign[:3])}, which no run does")
