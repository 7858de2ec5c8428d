"""Results on disk: a run folder with `results.json`, `tensors.safetensors`, and where they came from.

A run holds sections (`sections.py` says what is in each). Each maps a name (a reward model, or a model and a data set) to plain JSON;
per-neuron tensors are beside it, under `section/name/…`. No pickle is written or read.

What is written has the number `FORMAT`. It rises only where a reader of the number before would read something wrong: a key or a tensor
that means something else, or is gone. What is new gets a key of its own, `NotRequired` in its type, without a rise: older readers do not
see it, and newer ones do without it. Whoever raises `FORMAT` adds the step from the number before to `_MIGRATIONS`, and a run of the
number before to the tests; `Results.load` takes these steps in memory, and leaves the folder as it is. A run of a number that no step
leads from is refused: it is never read in part.

`findings` in that file are sentences that follow from the sections (`findings/`). Every save makes them anew, and nothing reads them back.
"""

import html
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tl_reward import parallel
from tl_reward.errors import InputError, Lacking, first_line, summary_of
from tl_reward.results.disk.folder import JSON, TENSORS, named, read_run, write_run
from tl_reward.results.disk.models import both_models
from tl_reward.results.disk.plain import LARGEST_FILE, json_fault, listed, read_json, short
from tl_reward.results.disk.relations import entry_fault
from tl_reward.results.disk.types import fault_of
from tl_reward.results.disk.whole import in_entry, run_fault
from tl_reward.results.findings.every import findings_of
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
    RepairEntry,
    ScoresEntry,
    Sections,
    SetsEntry,
    StudyEntry,
    TensionEntry,
)

FORMAT = 2


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
        folder: where it was read from; None where it was made here.
    """

    sections: Sections = field(default_factory=Sections)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    __repr__ = summary_of

    def add(self, section: str, name: str, value: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Adds one entry. Tensors are stored under `section/name/`.

        Raises:
            InputError: there is one of that name; or `load` would refuse a run that holds it, so that nothing is lost hours later.
        """
        if section not in SECTIONS:
            raise InputError(f"section must be one of {', '.join(SECTIONS)}, got {short(section)!r}")
        if name in self._untyped.get(section, {}):
            raise InputError(f"this run has {section} of {short(name)} already")
        # Copies: what the caller edits later is not part of the result, and no two entries share memory.
        kept = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in (tensors or {}).items()}
        full = {f"{section}/{name}/{key}": tensor for key, tensor in kept.items()}
        if said := json_fault({name: value}):
            raise InputError(f"{section}: {said}, so it cannot be part of a run")
        entry = json.loads(json.dumps(value))
        if "".join(full).encode("utf-8", "replace").decode() != "".join(full):  # half a character: safetensors cannot write it
            raise InputError(f"{section} of {short(name)}: the name is no text that a file can hold")
        twice = next((f"its tensor {short(key)} is there already" for key in full if key in self.tensors), None)  # names may hold a "/"
        said = fault_of({section: {name: entry}}) or in_entry(section, name, entry_fault(section, entry, kept.get) or twice)
        if said:
            raise InputError(f"{said}, so it cannot be part of a run")
        self._untyped.setdefault(section, {})[name] = entry
        self.tensors |= full

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
    def section(self, name: Literal["repair"]) -> dict[str, RepairEntry]: ...
    @overload
    def section(self, name: Literal["study"]) -> dict[str, StudyEntry]: ...
    @overload
    def section(self, name: str) -> dict[str, Any]: ...
    def section(self, name: str) -> Mapping[str, Any]:
        """The entries of a section, by name. Raises InputError where this run has no such section."""
        if name not in self.sections:
            raise Lacking(f"this run has no {short(name)}; it has {listed(self.sections)}", name)
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
    def entry(self, section: Literal["repair"], name: str) -> RepairEntry: ...
    @overload
    def entry(self, section: Literal["study"], name: str) -> StudyEntry: ...
    @overload
    def entry(self, section: str, name: str) -> Any: ...
    def entry(self, section: str, name: str) -> Mapping[str, Any]:
        """Raises InputError where the section has no such entry; the message names those that it has."""
        entries = self.section(section)
        if name not in entries:
            raise Lacking(f"this run has no {section} of {short(name)!r}; it has {listed(entries)}", section)
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
        """Raises InputError where the entry has no such tensor; the message names those of the section."""
        full = f"{section}/{name}/{key}"
        if full not in self.tensors:
            have = sorted(key.removeprefix(f"{section}/") for key in self.tensors if key.startswith(f"{section}/"))
            raise InputError(f"this run has no {short(full)}; {short(section)} has {listed(have)}")
        return self.tensors[full]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the run folder, all of it or nothing. Of several processes the first one writes, and the others wait for it.

        Raises:
            InputError: as `check_run_folder`; the disk is full; or `load` would refuse what was put in past `add`. The results are kept
                in memory: `save` may be called again, with another folder.
        """
        folder = Path(folder)
        parallel.on_first(lambda: self._write(folder, overwrite))
        return folder

    def _write(self, folder: Path, overwrite: bool) -> None:
        document = {"format": FORMAT, "provenance": self.provenance, "sections": self.sections}
        fault = json_fault(document)
        plain = {} if fault else json.loads(json.dumps(document, allow_nan=False))["sections"]
        if fault := fault or run_fault(self.provenance, plain, self.tensors):
            raise InputError(f"{named(folder)} is not written: {fault}")
        document["findings"] = _findings(plain)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        if len(text) > LARGEST_FILE:
            raise InputError(f"{named(folder)} is not written: {JSON} has {len(text):,} bytes, at most {LARGEST_FILE:,} are read")

        def write(scratch: Path) -> None:
            (scratch / JSON).write_text(text, encoding="utf-8")
            save_file(self.tensors, scratch / TENSORS)
            (scratch / TENSORS).chmod((scratch / JSON).stat().st_mode & 0o777)  # safetensors lets the owner alone read it

        try:
            write_run(folder, write, overwrite=overwrite)
        except SafetensorError as error:  # a full disk among others
            raise InputError(f"{named(folder)} cannot be written: {first_line(error)}") from None

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """Raises InputError where the folder is no run, a damaged one, one of a format that this version does not read, or a larger one
        than it reads: more than 512 MB of JSON, 10,000 entries, or a text of more than a million characters."""
        folder = Path(folder)
        try:
            return read_run(folder, lambda document, tensors: cls._read(folder, document, tensors))
        except KeyError as error:
            raise InputError(f"{named(folder)}: run is damaged ({JSON} has no {error})") from None
        except (TypeError, OSError, SafetensorError) as error:
            raise InputError(f"{named(folder)}: run is damaged ({first_line(error)})") from None

    @classmethod
    def _read(cls, folder: Path, document_path: Path, tensors_path: Path) -> "Results":
        try:
            document = read_json(document_path)
        except InputError as error:
            raise InputError(f"{named(folder)}: run is damaged ({error})") from None
        steps = _steps_from(document["format"])
        if steps is None:
            raise InputError(f"{named(folder)}: {_refusal(document)}")
        stored = Stored(document["sections"], load_file(tensors_path), document["provenance"])
        for step in steps:
            stored = step(stored)
        if fault := run_fault(stored.provenance, stored.sections, stored.tensors):
            raise InputError(f"{named(folder)}: run is damaged, or no run of tl_reward ({fault})")
        return cls(cast(Sections, stored.sections), stored.tensors, stored.provenance, folder)

    @classmethod
    def merge(cls, runs: Sequence["Results"]) -> "Results":
        """Several runs as one. The provenance is the first one's, and says of the models of all runs where they came from. Where two hold
        an entry of one name, of two sites, the later one's name tells its site.

        Raises:
            InputError: two runs hold the same entry, or call two models by one name.
        """
        if not runs:
            raise InputError("at least one run is needed, got none")
        merged = cls(provenance=dict(runs[0].provenance))
        of: dict[tuple[str, str], int] = {}  # which run an entry came from
        for number, run in enumerate(runs):
            try:
                models = both_models(merged.provenance, run.provenance)
            except InputError as error:
                raise InputError(f"{_called(run, number)}, beside {_called(runs[0], 0)}: {error}") from None
            if models:
                merged.provenance["models"] = models
            for section, entries in run._untyped.items():
                own = merged._untyped.setdefault(section, {})
                for name in sorted(set(entries) & set(own)):
                    site = entries[name].get("site")
                    if site is None or site == own[name].get("site") or f"{name} at {site}" in own.keys() | entries.keys():
                        both = " and ".join(_called(runs[i], i) for i in (of[section, name], number))
                        raise InputError(f"two runs hold {section} of {short(name)}: {both}; leave one out")
                    run = run._with_name(section, name, f"{name} at {site}")
                own.update(run._untyped[section])
                of |= {(section, name): number for name in run._untyped[section]}
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


def _findings(sections: Any) -> list[Any]:
    """What is written of findings. They follow from the sections, so that a fault of ours in one of their rules must not cost a run."""
    try:
        return [finding.to_json() for finding in findings_of(sections)]
    except Exception as error:
        warnings.warn(f"the run is written without its findings, which a fault of tl_reward stopped: {error!r}", stacklevel=5)
        return []


def _called(run: Results, place: int) -> str:
    """What a message calls a run: the folder that it was read from, or its place among those given."""
    return named(run.folder) if run.folder is not None else f"run {place + 1}"


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
    return f"run has format {short(document['format'])}{f' (of tl_reward {short(writer)})' if writer else ''}, this version reads {reads}"
