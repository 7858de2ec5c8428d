"""The command `tl-reward`."""

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command, and returns 0. Bad input exits with status 2, said in one line on standard error."""
    from tl_reward.cli.entry import run

    return run(args)
