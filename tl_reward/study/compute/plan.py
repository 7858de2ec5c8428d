"""What would a reproduction run, what does it lack, and about how long does it take?"""

import random
import shutil
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from transformers import AutoConfig, AutoTokenizer

from tl_reward.data.batches.packing import pack
from tl_reward.data.encoding import encode_pairs
from tl_reward.data.pairs import PreferencePair
from tl_reward.devices import has_bf16
from tl_reward.errors import InputError, first_line
from tl_reward.model import embedded
from tl_reward.study.compute.cells import Cell, cells, draws_of
from tl_reward.study.compute.dealing import CHARACTERS_A_TOKEN, characters, longest
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.memory import shape_of
from tl_reward.study.compute.store import State, missing_fractions, notes, state_of
from tl_reward.study.config import DATA, SingleObjective, Source, StudyConfig, data_needed, is_hub, located
from tl_reward.terminal.progress import duration

# Tokens a second and core that SmolLM2-135M ran in bfloat16; other models in proportion to their size.
ASSUMED_RATE, ASSUMED_PARAMETERS = 500.0, 135e6
# A backward pass costs about two forward passes.
PASSES_OF_TRAINING = 3
SAMPLE = 1000  # pairs whose tokens are counted, for all of a source


@dataclass(frozen=True)
class Planned:
    """A cell, and what it takes. `tokens`: of all its passes. `seconds`: None where nothing is known of the base."""

    cell: Cell
    state: State
    tokens: int
    seconds: float | None

    @property
    def done(self) -> bool:
        return self.state == "done"


class Sizes:
    """How many tokens cells run, and how fast. Everything is counted once."""

    def __init__(self, inputs: Inputs, out: Path) -> None:
        self.inputs, self.out = inputs, out
        self._notes = notes(out)
        self.tokens = lru_cache(None)(self._tokens)
        self.parameters = lru_cache(None)(_parameters)
        self._tokenizer = lru_cache(None)(_tokenizer)
        self._count = lru_cache(None)(self._counted)
        self.rate = lru_cache(None)(self._rate)
        self._trained = lru_cache(None)(self._tokens_a_pair)

    def _tokens(self, cell: Cell) -> int:
        config, source = self.inputs.config, self.inputs.base(cell.base).source
        shares = len(missing_fractions(self.out, cell, self.inputs))
        match cell.kind:
            case "train" | "retrain":
                most = config.retrain.pairs if cell.kind == "retrain" else config.training.max_pairs
                pairs = min(most or len(self.inputs.train(cell.objective).pairs), len(self.inputs.train(cell.objective).pairs))
                return round(self._trained(source, cell.objective) * pairs * config.training.epochs * PASSES_OF_TRAINING)
            case "discover":
                passes = 4 if config.conventions == "study" else 2  # the base model runs beside
                return self._count(source, "find", cell.objective) * passes
            case "firing":
                return self._count(source, "find", "mixed")
            case "compare":
                return 0
        passes = {
            "score": 1,
            "ablate": shares and 1 + shares * (1 + draws_of(cell, config)),
            "sets": shares and 1 + 3 * shares,
            "patch": shares and 1 + 2 * shares,
        }[cell.kind]
        return passes * self._count(source, *cell.tested)

    def _tokens_a_pair(self, source: str, objective: str) -> float:
        """Tokens of a training pair: each transcript by itself, of pairs that are not over-long."""
        config, pairs = self.inputs.config, self.inputs.train(objective).pairs
        some = random.Random(0).sample(pairs, min(SAMPLE, len(pairs)))
        tokenizer = self._tokenizer(source, config.training.chat)
        if tokenizer is None:
            return _guessed(some) / len(some)
        encoded = encode_pairs(some, tokenizer, max_length=config.training.max_length)
        return sum(len(encoded.rows[row].ids) for row in (*encoded.chosen, *encoded.rejected)) / len(encoded.pairs)

    def _counted(self, source: str, part: str, objective: str, edited: bool = False) -> int:
        """Tokens of one pass; a prefix that transcripts share counts once."""
        inputs = self.inputs
        pairs = inputs.find(objective).pairs if part == "find" else inputs.tested(part, objective, edited).pairs
        some = pairs[:SAMPLE]  # neighbours, which share prefixes
        tokenizer = self._tokenizer(source, inputs.config.training.chat)
        if tokenizer is None:
            return _guessed(pairs)
        length = longest(inputs.config, part, edited) or 1024
        rows = encode_pairs(some, tokenizer, max_length=length).rows
        counted = sum(batch.tokens.numel() for batch in pack(rows, max_tokens=max(1024, length)))
        return round(counted * len(pairs) / len(some))

    def estimated(self) -> list[str]:
        """Bases of which no tokenizer is at hand, so that tokens are estimated from characters."""
        chat = self.inputs.config.training.chat
        return [base.name for base in self.inputs.config.bases if self._tokenizer(base.source, chat) is None]

    def _rate(self, base: str, kind: str) -> tuple[float | None, bool]:
        """Tokens a second of cells of this kind, and whether that is measured (on cells that are done) or assumed."""
        done = [note for note in self._notes if note["kind"] == kind and note["name"].startswith(f"{base}, ") and note["tokens"]]
        if done:
            return sum(note["tokens"] for note in done) / max(sum(note["seconds"] for note in done), 1e-9), True
        size = self.parameters(self.inputs.base(base).source)
        return (ASSUMED_RATE * torch.get_num_threads() * ASSUMED_PARAMETERS / size if size else None), False


def plan(sizes: Sizes) -> list[Planned]:
    """Every cell, in the order in which they run."""
    planned = []
    for cell in cells(sizes.inputs.config):
        rate, _ = sizes.rate(cell.base, cell.kind)
        tokens = sizes.tokens(cell)
        planned.append(Planned(cell, state_of(sizes.out, cell, sizes.inputs), tokens, tokens / rate if rate else None))
    return planned


def print_reproduction_plan(inputs: Inputs, out: Path, console: Console) -> None:
    """Prints every cell, done or not, and what all takes. Raises InputError where something is missing: it is printed, with how many cells
    wait for it."""
    missing = problems(inputs, fetch=False)
    if missing:
        counts = Counter((cell.base, cell.kind) for cell in cells(inputs.config))
        for base in dict.fromkeys(base for base, _ in counts):
            listed = ", ".join(f"{count} {kind}" for (name, kind), count in counts.items() if name == base)
            console.print(f"  {base}: {listed}", soft_wrap=True, highlight=False)
        for line in missing:
            console.print(f"Problem: {line}", soft_wrap=True, highlight=False)
        raise InputError(f"{len(missing)} problems (above); none of the {counts.total():,} cells runs before they are solved")
    console.print("Cells (state, kind; base, objective, seed, and what is edited or tested):")
    sizes = Sizes(inputs, out)
    found = plan(sizes)
    for each in found:
        amount = f"{each.tokens:,} tokens, {duration(each.seconds)}"
        console.print(f"  {each.state:8}{each.cell.kind:9}{each.cell.name}  ({amount})", soft_wrap=True)
    left = [each for each in found if not each.done]
    seconds = [each.seconds for each in left]
    total = duration(None if None in seconds else sum(each for each in seconds if each is not None))
    console.print(
        f"{len(found) - len(left)} of {len(found)} cells are done; {sum(each.tokens for each in left):,} tokens are left, {total}."
    )
    kinds = dict.fromkeys((each.cell.base, each.cell.kind) for each in found if each.tokens)
    for word, wanted in (
        ("measured on cells that are done", True),
        (f"assumed, from the model's size and {torch.get_num_threads()} threads", False),
    ):
        rates = {f"{base} {kind}": rate for base, kind in kinds for rate, known in [sizes.rate(base, kind)] if known is wanted and rate}
        if rates:
            listed = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
            console.print(f"Tokens a second, {word}: {listed}.", soft_wrap=True)
    if said := slow_precision(inputs.config):
        console.print(f"{said}.", soft_wrap=True, highlight=False)
    if estimated := sizes.estimated():
        console.print(
            f"Tokens of {', '.join(estimated)} are estimates, of {CHARACTERS_A_TOKEN} characters each: no tokenizer is at hand.",
            soft_wrap=True,
        )
    free = shutil.disk_usage(next(parent for parent in [out.absolute(), *out.absolute().parents] if parent.exists())).free
    console.print(f"Disk: about {_disk(left, sizes) / 1e9:.2f} GB to write, {free / 1e9:.1f} GB free.")


def _disk(left: Sequence[Planned], sizes: Sizes) -> float:
    """Bytes. Whole models are kept in 2 bytes a weight, with a checkpoint of 12 beside the one in training; adapters are small."""
    full, total, largest = sizes.inputs.config.training.method == "full", 0.0, 0.0
    for each in left:
        if each.cell.kind in ("train", "retrain"):
            size = sizes.parameters(sizes.inputs.base(each.cell.base).source) or 0
            whole = full or each.cell.edit.kind == "pruned"
            total += size * (2 if whole else 0.1)
            largest = max(largest, size * (12 if full else 0.5))
        else:
            total += 1e6 if each.cell.kind == "discover" else 2e5
    return total + largest


def slow_precision(config: StudyConfig) -> str | None:
    """What to say of a config's precision that torch has no kernels for on this machine."""
    if config.dtype == "float32" or has_bf16():
        return None
    return f'dtype = "{config.dtype}": torch has no kernels for it on this machine; it takes several times as long as dtype = "float32"'


def problems(inputs: Inputs, *, fetch: bool = True) -> list[str]:
    """What a run would lack, a line each: files, models, the network. Reads the data that are there. `fetch`: the embedded base is
    prepared, where it is not there yet."""
    found = list(dict.fromkeys(_missing_data(inputs)))
    hub = [base.source for base in inputs.config.bases if base.source != embedded.BASE and not Path(base.source).is_dir()]
    hub = [source for source in hub if not _cached(source)]
    online = not hub or reachable()
    for base in inputs.config.bases:
        try:
            folder = embedded.resolve(base.source) if fetch else embedded.at_hand(base.source)
            if base.source not in hub and folder is not None:
                AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (InputError, OSError, ValueError) as error:
            found.append(f"model {base.source}: {first_line(error)}")
    found += [f"model {source}: {why}" for source in hub if (why := _not_on_hub(source) if online else _no_network())]
    return found


class Listed(NamedTuple):
    """A source of a config, and what its pairs are for: `Inputs.read`'s arguments."""

    source: Source
    objective: SingleObjective | None
    part: str


def _missing_data(inputs: Inputs) -> Iterator[str]:
    config = inputs.config
    listed: list[Listed] = []
    for name in data_needed(config):
        listed += [Listed(source, name, "train") for source in config.data[name].train]
        listed += [Listed(source, name, "test") for source in config.data[name].test]
    listed += [Listed(source, source.objective, "test") for sources in config.benchmarks.values() for source in sources]
    offline = any(is_hub(source) for source, *_ in listed) and not reachable()
    for source, objective, part in listed:
        if offline and is_hub(source):
            yield f"data {source.source}: {_no_network()}"
            continue
        why = _why_unreadable(inputs, source, objective, part)
        if why:
            yield f"data {why}"


def _why_unreadable(inputs: Inputs, source: Source, objective: SingleObjective | None, part: str) -> str | None:
    try:
        if DATA in source.source and inputs.data is not None and not Path(located(source, inputs.data).source).is_file():
            return f"{located(source, inputs.data).source}: no such file"
        inputs.read(source, objective, part)
    except InputError as error:
        return str(error)
    return None


@lru_cache(maxsize=1)
def reachable() -> bool:
    """Whether the hub answers, or is told not to be asked."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _no_network() -> str:
    from huggingface_hub import constants

    return f"no network: {constants.ENDPOINT} does not answer (HF_HUB_OFFLINE=1 reads what is cached)"


def _cached(source: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source, "config.json"), str)


def _not_on_hub(source: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(source, timeout=10)
    except Exception as error:  # huggingface_hub raises many kinds for "not there" and "no network"
        return first_line(error)
    return None


def _parameters(source: str) -> int | None:
    """Of a model that is at hand, or the embedded one."""
    shape = shape_of(source)
    return shape[0] if shape else int(ASSUMED_PARAMETERS) if source == embedded.BASE else None


def _tokenizer(source: str, chat: bool) -> Any:
    """None where none is at hand."""
    folder = embedded.at_hand(source)
    if folder is None:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (InputError, OSError, ValueError):
        return None
    if not chat:
        tokenizer.chat_template = None
    return tokenizer


def _guessed(pairs: Sequence[PreferencePair]) -> int:
    return sum(map(sum, map(characters, pairs))) // CHARACTERS_A_TOKEN
