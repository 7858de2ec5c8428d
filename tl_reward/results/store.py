"""Results on disk: a run folder with `results.json`, `tensors.safetensors`, and where they came from.

A run holds sections (`SECTIONS`). Each maps a name (a reward model, or a model and a data set) to
plain JSON; per-neuron tensors are beside it, under `section/name/…`. No pickle is written or read.
"""

import html
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tl_reward import parallel
from tl_reward.errors import InputError, first_line

FORMAT = 2
SECTIONS = (
    "scores",
    "discovery",
    "examples",
    "attribution",
    "effects",
    "tension",
    "ablation",
    "sets",
    "overlap",
    "patching",
    "model_patching",
    "lens",
    "study",
)
_JSON, _TENSORS = "results.json", "tensors.safetensors"


@dataclass(eq=False)
class Results:
    """What one or more analyses found.

    Attributes:
        sections: section → name → JSON.
        tensors: `section/name/…` → tensor.
        provenance: versions, seed, commit, data hashes, command.
    """

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def add(self, section: str, name: str, value: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Adds one entry. Tensors are stored under `section/name/`."""
        if section not in SECTIONS:
            raise InputError(f"section must be one of {', '.join(SECTIONS)}, got {section!r}")
        if name in self.sections.setdefault(section, {}):
            raise InputError(f"this run has {section} of {name} already")
        self.sections[section][name] = dict(value)
        for key, tensor in (tensors or {}).items():
            # A copy: what the caller edits later is not part of the result, and no two entries share memory.
            self.tensors[f"{section}/{name}/{key}"] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)

    def section(self, name: str) -> dict[str, Any]:
        """Raises InputError where this run has no such section."""
        if name not in self.sections:
            raise InputError(f"this run has no {name}; it has {', '.join(self.sections) or 'nothing'}")
        return self.sections[name]

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """Raises InputError where the section has no such entry; the message names those that it has."""
        entries = self.section(section)
        if name not in entries:
            raise InputError(f"this run has no {section} of {name!r}; it has {', '.join(entries)}")
        return entries[name]

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
        """Raises InputError where the folder is no run, or one of a format that this version does not read."""
        folder = Path(folder)
        if not (folder / _JSON).is_file():
            raise InputError(f"{folder}: no run folder ({_JSON} is missing)")
        try:
            document = json.loads((folder / _JSON).read_text(encoding="utf-8"))
            tensors = load_file(folder / _TENSORS)
            if document["format"] != FORMAT:
                raise InputError(f"{folder}: run has format {document['format']}, this version reads {FORMAT}")
            return cls(document["sections"], tensors, document["provenance"])
        except KeyError as error:
            raise InputError(f"{folder}: run is damaged ({_JSON} has no {error})") from None
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError, OSError, SafetensorError) as error:
            raise InputError(f"{folder}: run is damaged ({first_line(error)})") from None

    @classmethod
    def merge(cls, runs: Sequence["Results"]) -> "Results":
        """Several runs as one. Raises InputError where two hold the same entry; the provenance is the first one's."""
        merged = cls(provenance=runs[0].provenance)
        for run in runs:
            for section, entries in run.sections.items():
                both = set(entries) & set(merged.sections.get(section, {}))
                if both:
                    raise InputError(f"two runs hold {section} of {sorted(both)[0]}")
                merged.sections.setdefault(section, {}).update(entries)
            merged.tensors |= run.tensors
        return merged

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(section)}</td><td>{html.escape(', '.join(entries))}</td></tr>"
            for section, entries in self.sections.items()
        )
        return f"<table><tr><th>section</th><th>entries</th></tr>{rows}</table>"


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
