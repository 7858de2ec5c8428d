"""The command that runs the whole study: every model, edit and sub-task of a config, and a report on them."""

from dataclasses import dataclass
from pathlib import Path

from tl_reward.show.console import console


@dataclass(frozen=True)
class ReproduceCommand:
    """Reproduce arXiv 2606.13209 as a config says, and report on its claims. Goes on where an earlier run was cut short."""

    config: Path
    """A TOML file, such as experiments/configs/local.toml."""
    out: Path
    """The folder for cells and report; one of an earlier run of the same study goes on."""
    data: Path | None = None
    """The folder that $DATA stands for in the config."""
    plan: bool = False
    """Print every cell, what is missing, about how long all takes, and which claims the rows can decide; run nothing."""
    jobs: int = 1
    """Processes that compute cells side by side; fewer where memory has no room for them."""

    def run(self) -> None:
        from tl_reward.study.compute.inputs import Inputs
        from tl_reward.study.compute.plan import print_reproduction_plan
        from tl_reward.study.config import load_config
        from tl_reward.study.power.claims import print_power
        from tl_reward.study.report.runner import reproduce

        config = load_config(self.config)
        if self.plan:
            inputs = Inputs(config, self.data)
            print_reproduction_plan(inputs, self.out, console)
            print_power(inputs, self.out, console)
            return
        try:
            report = reproduce(config, self.out, data=self.data, jobs=self.jobs)
        except KeyboardInterrupt:
            console.print("Stopped. The same command goes on from here.")
            raise SystemExit(130) from None
        console.print(f"Report: {report.resolve()}, and as a page {report.with_suffix('.html').name} beside it", soft_wrap=True)
