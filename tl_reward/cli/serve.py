"""The command that serves a run's page with models behind it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tl_reward.cli.options import Running, Runs, merged, named
from tl_reward.errors import InputError
from tl_reward.model import embedded
from tl_reward.show.console import console

if TYPE_CHECKING:
    from tl_reward.results.store import Results


@dataclass(frozen=True)
class ServeCommand:
    """Serve a run's page with its models behind it: type a pair, see rewards and neurons, switch neurons off. For this machine alone.

    Needs the extra: pip install 'tl_reward[serve]'.
    """

    runs: Runs
    """Run folders; several are shown on one page."""
    models: tuple[str, ...] = ()
    """Folders, hub ids, or the embedded helpful, harmless, mixed; NAME=MODEL gives one a name. Default: those that the run is about, where
    they still are where it says."""
    other_model: bool = False
    """Show the run's numbers even if it has them of another model of that name."""
    port: int = 0
    """The port of 127.0.0.1. Default: any that is free."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the models. The head and all sums are wider: float32 and float64."""
    device: str | None = None
    """Default: the GPU if there is one."""
    template: str | None = None
    """How transcripts are written: hh (HH-RLHF turns), plain, or a file with a Jinja chat template. Default: the tokenizer's own."""
    adapter_base: str | None = None
    """Base model of the adapters among the models, where the one that their config names is elsewhere."""
    output: str | None = None
    """Which of a head's outputs is the reward, as in the other commands; refused where a model lacks it."""

    def run(self) -> None:
        try:
            from tl_reward.show.live.server import serve
        except ModuleNotFoundError as error:
            raise InputError(f"the live page needs {error.name}: pip install 'tl_reward[serve]'") from None
        from tl_reward.measures.names import labelled
        from tl_reward.model.heads.chosen import check_output, output_name
        from tl_reward.results.record_models import check_model
        from tl_reward.show.neuron_columns import mean_of, shape_of
        from tl_reward.show.page import build_page

        results = merged(self.runs)
        sources = named(self.models) if self.models else models_of(results)
        page = build_page(results, live=True)
        running = Running(dtype=self.dtype, device=self.device, template=self.template, adapter_base=self.adapter_base, output=self.output)
        running.check_base(sources)
        loaded = [(name, source, running.load(source)) for name, source in sources.items()]
        models = {labelled(name, output_name(model)): model for name, _, model in loaded}
        sources = {labelled(name, output_name(model)): source for name, source, model in loaded}
        for name, model in models.items():
            check_output(model)
            check_model(results, name, model, other_model=self.other_model)
            shape, told = (model.cfg.n_layers, model.cfg.d_mlp), shape_of(results, name)
            if told not in (None, shape):
                raise InputError(f"the run's {name} has {told} layers and neurons, the one at {sources[name]} has {shape}; give --models")
        own = {name: "embedded" if source == str(embedded.ADAPTERS / name) else source for name, source in sources.items()}
        console.print(f"Models: {', '.join(f'{name} ({source})' for name, source in own.items())}", soft_wrap=True)
        plain = {labelled(name, output_name(model)): name for name, _, model in loaded}
        found = {name: (mean_of(results, name), mean_of(results, plain[name])) for name in models}  # means are the same for each output
        means = {name: mean for name, each in found.items() for mean in each[::-1] if mean is not None}
        serve(models, page, sources=own, means=means, port=self.port)


def models_of(results: "Results") -> dict[str, str]:
    """Where the models are that a run is about: embedded, or in the folder that it names. Raises InputError where none is there."""
    told = results.models()
    recorded = results.provenance.get("models", {})
    paths = {
        name: str(embedded.ADAPTERS / name) if name in embedded.REWARD_MODELS else recorded.get(name, {}).get("path")
        for name in sorted(told)
    }
    found = {name: path for name, path in paths.items() if isinstance(path, str) and Path(path).is_dir()}
    if not found:
        raise InputError(
            f"no model of this run is where it was ({', '.join(sorted(told)) or 'it names none'}); give them as --models NAME=MODEL"
        )
    return found
