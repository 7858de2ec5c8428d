"""Which model a run means by a name: a name is a folder's last part, and two folders may end alike."""

import warnings
from typing import Any

from tl_reward.data.text import given_template
from tl_reward.errors import InputError
from tl_reward.measures.agreement import Precision
from tl_reward.measures.names import labelled
from tl_reward.model.heads.chosen import name_of, output_name
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.results.disk.models import compare, known
from tl_reward.results.sections import made
from tl_reward.results.store import Results


def record_model(results: Results, label: str, model: HookedRewardModel, *, precision: Precision | None = None) -> None:
    """Keeps in a run's provenance which model it calls `label`: path, architecture, sizes, a hash of the weights, where its reward is read,
    and of several outputs which one it is. `check_model` and `Results.merge` compare with that. A model that is read by one of several
    outputs (`model.output`) is called by both names, as in "armo · helpfulness".

    Args:
        precision: how the run's figures of it were made, where they were made alike; of an entry that says otherwise, its own counts.

    Raises:
        InputError: the run calls another model by that name.
    """
    label = labelled(label, output_name(model))
    models = results.provenance.setdefault("models", {})
    compare(label, known(models, label), _told_of(model), "this run holds another model of that name: use another name for one")
    models[label] = _told_of(model) | dict(made(precision))


def check_model(results: Results, label: str, model: HookedRewardModel, *, other_model: bool = False) -> None:
    """Refuses a model for which rankings, effects, means or sets of a run are not. Runs written before models were recorded tell nothing,
    and pass.

    Args:
        label: what the run calls the model.
        other_model: take them all the same, with a warning.

    Raises:
        InputError: the run's `label` has other weights, or another shape or architecture, or is read by another output.
    """
    helps = "its neurons are not this one's; with other_model=True (--other-model) they are taken all the same"
    helps = "its neurons are taken all the same" if other_model else helps
    models = results.provenance.get("models")
    # Entries may be of one output, where the model was recorded without a choice, and the other way round.
    for name in (label, labelled(label, output_name(model)), label.rpartition(" · ")[0]):
        if (told := known(models, name)) is not None:
            if {*results.sections} == {"discovery"}:  # activations are of no output
                told = {key: value for key, value in told.items() if key != "output"}
            try:
                compare(name, told, _told_of(model), helps)
            except InputError as error:
                if not other_model:
                    raise
                warnings.warn(str(error), stacklevel=3)
            return


def _told_of(model: HookedRewardModel) -> dict[str, Any]:
    template = given_template(model.tokenizer)
    several = {"outputs": list(model.outputs)} if len(model.outputs) > 1 else {}
    name = name_of(model.output, model.outputs)  # also of what the published model takes, where nobody has chosen
    output = {"output": name} if several and name else {}
    return {**model.origin.to_json(), "readout": model.readout, **({"template": template} if template else {}), **several, **output}
