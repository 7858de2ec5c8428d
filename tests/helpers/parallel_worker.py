"""What `test_parallel` runs in several processes, and by itself in one."""

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor

import tl_reward
from tl_reward import parallel
from tl_reward.analyses.tension import tension
from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.model.training import TrainingConfig, TrainingRecord, preparation, trainer
from tl_reward.model.training import train as train_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import sample_activations, stream
from tl_reward.sites import Site

TRAINING = {
    method: TrainingConfig(method=method, learning_rate=3e-3, epochs=3, batch_size=6, max_length=1000, save_every=2)
    for method in ("full", "lora")
}


class Plain:
    """Changes nothing. It does not say that it is per token, so that batches are padded, with a prompt's rows in several of them."""

    def hooks(self, batch):
        return []


class Broken:
    """Makes activations infinite in the last process alone."""

    per_token: ClassVar[bool] = True

    def hooks(self, batch):
        last = parallel.rank() == parallel.count() - 1
        return [(Site(1, "mlp_post").hook_name, lambda x, hook: x / 0 if last else x)]


def twelve_pairs() -> list[PreferencePair]:
    return [*tl_reward.load_pairs("embedded", split="find", objective="helpful", limit=6), *harmless_pairs()[:6]]


def harmless_pairs() -> list[PreferencePair]:
    return tl_reward.load_pairs("embedded", split="find", objective="harmless", limit=12)


def passes(pairs: list[PreferencePair], **options: Any) -> dict[str, Tensor]:
    """Scores, statistics, contrasts and attributions."""
    model, base = tiny_reward_model(), tiny_reward_model(seed=1)
    found = {"score": torch.tensor([*tl_reward.score(model, pairs, **options).margin])}
    discovery = tl_reward.discover(model, pairs, base=base, **options)
    found |= {f"{site} {name}": value for (site, name), value in discovery.by_side.items()}
    found |= {f"{site} firing {objective}": value for (site, objective), value in discovery.firing.items()}
    for site, contrast in discovery.contrast.items():
        found |= {f"{site} {name}": torch.as_tensor(value) for name, value in contrast._asdict().items()}
    plain: dict[str, Any] = {**options, "interventions": [Plain()]}
    for name, attribution in {
        "gradient": tl_reward.attribute(model, pairs, **options),
        "integrated heads": tl_reward.attribute(model, pairs, site="attn_z", steps=2, **options),
        "pair": tl_reward.attribute(model, pairs, baseline="pair", **options),
        "padded": tl_reward.attribute(model, pairs, **plain),
    }.items():
        found |= {f"{name} effect": attribution.effect, f"{name} error": attribution.error}
    return found


def everything(pairs: list[PreferencePair]) -> dict[str, Tensor]:
    options: dict[str, Any] = {"max_tokens": 1600}
    model, found = tiny_reward_model(), passes(pairs, **options)
    for name, effects in tension(model, pairs, **options).effects.items():
        found |= {f"tension effect {name}": effects.effect, f"tension error {name}": effects.error}
    zeroed = tl_reward.neuron_effects(model, pairs, NeuronSet([(0, 3), (1, 7)]), **options)
    direct, lens = tl_reward.direct_attribution(model, pairs, **options), tl_reward.reward_lens(model, pairs, **options)
    patched = tl_reward.patch_pairs(model, pairs, kinds=["mlp_out"], **options)
    held = tl_reward.activations(model, pairs, "resid_post", where="response", **options)
    found |= {f"activations {site.layer}": values for site, values in held.values.items()} | {"held": torch.from_numpy(held.scores.margin)}
    found |= {"zeroed": torch.from_numpy(zeroed.margin), "lens": torch.from_numpy(lens.margins())}
    found |= {"curves": torch.cat([curve.chosen for curve in lens.curves]), "bank": sample_activations(model, pairs, "mlp_gate", **options)}
    found |= {name: getattr(direct, name) for name in ("neuron", "head", "embedding", "bias", "reward")}
    found |= {name: torch.from_numpy(getattr(patched, name)) for name in ("noised", "denoised", "noised_estimate", "tokens")}
    return found


def train(base: Path, output: Path, config: TrainingConfig) -> TrainingRecord:
    """In float32, so that two processes can be told from one that sees other pairs. Of several, each asks for another number of passes."""
    has_bf16, preparation.has_bf16 = preparation.has_bf16, lambda: False
    if parallel.count() > 1:
        trainer.__dict__["number_of_parts"] = lambda lengths, tokens: 1 + parallel.rank()
    try:
        return train_model(str(base), harmless_pairs(), output, config)
    finally:
        preparation.has_bf16 = has_bf16


def message_of(fn) -> str:
    try:
        fn()
    except InputError as error:
        return str(error)
    return ""


def main(what: str, folder: Path) -> None:
    torch.set_num_threads(1)
    pairs = twelve_pairs()
    if what == "everything":
        model = tiny_reward_model()
        broken = message_of(lambda: tl_reward.discover(model, pairs, max_tokens=1600, interventions=[Broken()]))
        examples = message_of(lambda: tl_reward.collect_examples(model, pairs, NeuronSet([(0, 1)])))
        unmerged = message_of(lambda: stream(model, pairs, [Site(0, "mlp_post")], lambda *_: None))
        odd = message_of(lambda: train(folder / "base", folder / "odd", TrainingConfig(batch_size=5)))
        (folder / f"messages{parallel.rank()}.txt").write_text("\n".join([broken, examples, unmerged, odd]))
        found = everything(pairs)
        for method, config in TRAINING.items():
            train(folder / "base", folder / f"two-{method}", config)
    else:
        found = passes(pairs[:1] + pairs[-1:], max_tokens=700)
    save_file({key: value.contiguous() for key, value in found.items()}, folder / f"{what}{parallel.rank()}.safetensors")
    if what == "few":
        parallel.on_first(lambda: None)
        if parallel.rank() == 1:
            os._exit(3)
        parallel.gathered(None)  # waits for ever, but for the launcher


if __name__ == "__main__":
    arguments = sys.argv[1], Path(sys.argv[2])
    if "WORLD_SIZE" in os.environ:
        main(*arguments)
    else:  # two processes as torchrun starts them, but forked from this one, which has imported everything once
        import trl  # noqa: F401
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        elastic_launch(LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork"), main)(*arguments)
