"""Which parts, called cells, does a reproduction compute for each base, objective and seed, from what, and in which order?"""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tl_reward.study.benchmarks import OBJECTIVE_TEST
from tl_reward.study.compute.dealing import longest
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.config import Ranking, StudyConfig
from tl_reward.study.matrix import Model, ModelEdit

Kind = Literal["train", "score", "discover", "firing", "ablate", "compare", "sets", "patch", "retrain"]
NO_EDIT = ModelEdit()
# Entropy compares firing over the pairs of both objectives; the other rankings are of a model's own. A cell of its own each, so that a
# ranking that is added leaves what was found before as it is.
_FINDS: Mapping[str, Kind] = {"entropy": "firing"}
# Rises whenever what a cell computes or holds changes: cells of an earlier one are made again.
FORMAT = 2
TRIO = ("helpful", "harmless", "mixed")


@dataclass(frozen=True)
class Cell:
    """A part that is computed at once and kept in a folder of its own.

    Attributes:
        objective: of the model; "mixed" for "sets" and "patch", "" for "compare", which is of all.
        edit: of a model that was trained again ("retrain", and its "score").
        ranking: "ablate". "firing" is what entropy is found from, "discover" what the others are.
        test: a benchmark's name, or `OBJECTIVE_TEST`.
        needs: the cells that it reads.
    """

    kind: Kind
    base: str
    seed: int
    objective: str = ""
    edit: ModelEdit = NO_EDIT
    ranking: Ranking | Literal[""] = ""
    test: str = ""
    needs: tuple["Cell", ...] = ()

    @property
    def model(self) -> Model:
        return Model(self.base, self.objective, self.seed)

    @property
    def name(self) -> str:
        """Of its folder."""
        edit = [f"{self.edit.kind} {self.edit.name} {self.edit.fraction}"] if self.edit != NO_EDIT else []
        return ", ".join(filter(None, [self.base, self.objective, str(self.seed), *edit, self.ranking, self.test]))

    @property
    def tested(self) -> tuple[str, str, bool]:
        """The arguments of `Inputs.tested`: a benchmark is the same for every model, its objective's test pairs are not."""
        return (self.test, self.objective if self.test == OBJECTIVE_TEST else "", self.kind != "score" or self.edit != NO_EDIT)

    def needed(self, kind: Kind, objective: str | None = None) -> "Cell | None":
        """The cell of this kind that it reads, where there is one."""
        return next((each for each in self.needs if each.kind == kind and objective in (None, each.objective)), None)


def cells(config: StudyConfig) -> list[Cell]:
    """Every cell, each after those it needs, in the order of what they decide: a run that is cut short has decided whole claims, and not
    half of every one. One base after the other, and one seed: first the models and their neurons (overlap, depth), then scores of unedited
    models (accuracy, RM-Bench, rewards), what zeroing the top neurons costs by the first ranking (cost and gain, drops, random neurons),
    shared and specific sets; then the other rankings, patches, and models that are trained again."""
    places = {base.name: i for i, base in enumerate(config.bases)}
    seeds = {seed: i for i, seed in enumerate(config.seeds)}
    return sorted(_cells(config), key=lambda cell: (places[cell.base], seeds[cell.seed], _stage(cell, config)))


def _stage(cell: Cell, config: StudyConfig) -> int:
    if cell.kind == "score":
        return 6 if cell.edit != NO_EDIT else 1
    first = cell.kind == "ablate" and cell.ranking == config.rankings[0]
    return {"train": 0, "discover": 0, "firing": 0, "compare": 0, "ablate": 2 if first else 4, "sets": 3, "patch": 5, "retrain": 6}[
        cell.kind
    ]


def _cells(config: StudyConfig) -> list[Cell]:
    """Those of one model together."""
    found: list[Cell] = []
    tests = [OBJECTIVE_TEST, *config.benchmarks]
    of_edited = [test for test in tests if config.limits.edited.get(test) != 0]
    for base in config.bases:
        for seed in config.seeds:
            discovered: dict[str, Cell] = {}
            compared: list[Cell] = []
            trained: dict[str, tuple[Cell, ...]] = {}
            for objective in config.objectives:
                # The embedded adapters are there already.
                train = () if base.shipped and seed == 0 else (Cell("train", base.name, seed, objective),)
                discover = Cell("discover", base.name, seed, objective, needs=train)
                trained[objective], discovered[objective] = train, discover
                ranked = {name: dataclasses.replace(discover, kind=_FINDS.get(name, "discover")) for name in config.rankings}
                compared += dict.fromkeys(ranked.values())
                found += [*train, *(Cell("score", base.name, seed, objective, test=test, needs=train) for test in tests)]
                found += dict.fromkeys([discover, *ranked.values()])
                found += [
                    Cell("ablate", base.name, seed, objective, ranking=ranking, test=test, needs=(*train, ranked[ranking]))
                    for ranking in (config.rankings if config.fractions else ())
                    for test in of_edited
                ]
            if len(discovered) > 1:
                found.append(Cell("compare", base.name, seed, needs=tuple(compared)))
            both = tuple(discovered[name] for name in TRIO[:2] if name in discovered)
            if config.set_fractions:
                found += [Cell("sets", base.name, seed, "mixed", test=test, needs=(*trained["mixed"], *both)) for test in of_edited]
            if config.patch_fractions:
                needs = (*trained["mixed"], *trained["helpful"], discovered["helpful"])
                found += [Cell("patch", base.name, seed, "mixed", test=test, needs=needs) for test in of_edited]
            for objective in config.retrain.objectives:
                for edit in _retrained(config):
                    again = Cell("retrain", base.name, seed, objective, edit, needs=(discovered[objective],))
                    found.append(again)
                    needs = (again, discovered[objective])
                    found += [Cell("score", base.name, seed, objective, edit, test=test, needs=needs) for test in of_edited]
    return found


def max_length_of(cell: Cell, config: StudyConfig) -> int | None:
    """Tokens of a transcript that a cell's model is given."""
    return longest(config, cell.test, bool(cell.test) and cell.tested[2])


def _retrained(config: StudyConfig) -> list[ModelEdit]:
    """A control, with no neuron left out, is the same of both kinds, and is there once."""
    again = config.retrain
    controls = [ModelEdit("masked", again.ranking, 0.0)] if again.kinds and 0 in again.fractions else []
    return controls + [ModelEdit(kind, again.ranking, fraction) for kind in again.kinds for fraction in again.fractions if fraction]


def made_from(cell: Cell, inputs: Inputs) -> dict[str, Any]:
    """What a cell is made from besides the cells that it needs: its slice of the config, and hashes of its pairs and models."""
    config = inputs.config
    run = {"dtype": config.dtype, "max_length": max_length_of(cell, config)}
    edited = run | {"conventions": config.conventions}
    training = dataclasses.asdict(config.training)
    del training["save_every"]  # says where a training can go on, not what comes of it
    shipped = inputs.base(cell.base).shipped and cell.seed == 0
    base = {"base": inputs.base_hashes[cell.base]} | ({"adapters": inputs.adapter_hashes} if shipped else {})
    tested = {"tested": inputs.tested(*cell.tested).hash} if cell.test else {}
    match cell.kind:
        case "train":
            return base | {"training": training, "pairs": inputs.train(cell.objective).hash}
        case "retrain":
            training["max_pairs"] = config.retrain.pairs
            return base | {"training": training, "pairs": inputs.train(cell.objective).hash, "conventions": config.conventions}
        case "score":
            return base | run | tested
        case "discover":
            return base | edited | {"pairs": inputs.find(cell.objective).hash}
        case "firing":
            return base | run | {"pairs": inputs.find("mixed").hash}
        case "ablate":
            return base | edited | tested | {"fractions": config.fractions, "draws": draws_of(cell, config)}
        case "compare":
            return {"rankings": config.rankings, "conventions": config.conventions}
        case "sets":
            return base | edited | tested | {"ranking": config.rankings[0], "fractions": config.set_fractions}
        case "patch":
            return base | edited | tested | {"ranking": config.rankings[0], "fractions": config.patch_fractions}


def seed_of_random(cell: Cell) -> int:
    """Of a model's random ranking: for each model another."""
    return zlib.crc32(f"{cell.base} {cell.objective} {cell.seed}".encode())


def draws_of(cell: Cell, config: StudyConfig) -> int:
    """Layer-matched random sets beside each set of an "ablate" cell; a random ranking is its own control."""
    return 0 if cell.ranking == "random" else config.draws


def key(cell: Cell, inputs: Inputs, made: Mapping[str, Any] | None = None) -> str:
    """Changes with whatever the cell is made from, the cells that it needs included.

    Args:
        made: what it is taken to be made from, if not from what it would be now.
    """
    return _hash([FORMAT, cell.kind, cell.name, made or made_from(cell, inputs), [key(each, inputs) for each in cell.needs]])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
