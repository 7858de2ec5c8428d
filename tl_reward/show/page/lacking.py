"""What does a run not have that a page could show, and which command makes it?"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tl_reward.measures.names import EDITED
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import columns_of

_MOST_NAMED = 3  # neurons in a command


class _Wanted(NamedTuple):
    """Attributes:
    reads_model: whether the command loads the model, and takes the options that say how.
    """

    what: str
    command: str
    reads_model: bool = True


def missing_of(results: Results, model: str | None) -> list[dict[str, str]]:
    """What the page would show of that model (or of one that was scored) and the run has not, with the command that computes it. RUN is
    this run's folder, OTHER_RUN and OTHER_MODEL those of another model."""
    have = results.sections
    label = model or next((entry["model"] for entry in have.get("scores", {}).values()), "MODEL")
    named, *options = asked_for(results, label)
    other = next((name for name in sorted(results.models()) if name.partition(" · ")[0] != label.partition(" · ")[0]), None)
    wanted = _wanted(named, asked_for(results, other)[0] if other else "OTHER_MODEL")
    if EDITED in label:
        del wanted["repair"]  # of an edited model there is none
    wanted["effects"] = wanted["effects"]._replace(command=f"effects {named} --neurons {' '.join(_worth_editing(results, label))}")
    return [
        {
            "what": each.what,
            "command": " ".join(["tl-reward", each.command, *(options if each.reads_model else []), f"--out runs/{section}"]),
        }
        for section, each in wanted.items()
        if section not in have
    ]


def _wanted(model: str, other: str) -> dict[str, _Wanted]:
    """By section, in the order in which a reader would make them."""
    return {
        "scores": _Wanted("whether the model prefers the chosen responses", f"score {model}"),
        "tension": _Wanted("what each neuron does to the helpful and to the harmless margin", f"tension {model}"),
        "attribution": _Wanted("how far estimated effects can be trusted", f"attribute {model}"),
        "effects": _Wanted("what editing a neuron alone does, exactly", f"effects {model}"),
        "discovery": _Wanted("how active each neuron is", f"discover {model}"),
        "examples": _Wanted("which texts drive each neuron", f"examples {model} --ranking RUN"),
        "overlap": _Wanted("whether two models have the same top neurons", "compare RUN OTHER_RUN", reads_model=False),
        "ablation": _Wanted("what breaks when the top neurons are zeroed", f"ablate {model} --ranking RUN"),
        "sets": _Wanted("what breaks when the neurons of one objective, or of both, are zeroed", f"effects {model} --sets RUN"),
        "patching": _Wanted("which layers suffice to move the reward", f"patch {model}"),
        "model_patching": _Wanted("what another model's neurons give back, and what they cost", f"patch-models {model} {other}"),
        "lens": _Wanted("at which layer a preference is decided", f"lens {model}"),
        "repair": _Wanted("whether an edit of few neurons serves both objectives better", f"repair {model}"),
    }


def _worth_editing(results: Results, model: str) -> list[str]:
    """The neurons that the run says most of; where it says nothing, the first one."""
    effect = next((np.abs(column.values) for column in columns_of(results) if column.model == model), np.ones((1, 1)))
    order = np.argsort(-np.nan_to_num(effect, nan=-np.inf), axis=None, kind="stable")[:_MOST_NAMED]
    found = NeuronSet(divmod(int(place), effect.shape[1]) for place in order)
    return [f"{layer}.{neuron}" for layer, neuron in found]


def asked_for(results: Results, label: str) -> list[str]:
    """A model as a command takes it, and its edits and its output as options. Its folder is not told to whoever reads the page: MODEL
    stands for it, and MODULE for where an intervention is, of which a run knows the name alone."""
    recorded = results.provenance.get("models", {}).get(label)
    told: Mapping[str, Any] = recorded if isinstance(recorded, Mapping) else {}
    output = str(told.get("output") or "")
    name, *edits = label.removesuffix(f" · {output}").split(EDITED)
    if not all(edit.isidentifier() for edit in edits):
        name, edits = EDITED.join([name, *edits]), []
    path = str(told.get("path") or "")
    known = not path or path == name or Path(path).parts[-4:] == ("tl_reward", "model", "adapters", name)  # the last: embedded
    return [
        shlex.quote(name if known else f"{name}={path if not Path(path).is_absolute() else 'MODEL'}"),
        *(["--intervention", *(f"MODULE:{edit}" for edit in edits)] if edits else []),
        *(["--output", shlex.quote(output)] if output else []),
    ]
