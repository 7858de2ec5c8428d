"""The command `tl-reward`."""

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command, and returns 0. Bad input exits with status 2, said in one line on standard error; Ctrl-C with 130."""
    from tl_reward.cli.program import as_program

    with as_program("tl-reward"):
        from tl_reward.cli.entry import run

        return run(args)
