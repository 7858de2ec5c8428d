"""`python -m tl_reward` is the command `tl-reward`."""

import sys

from tl_reward.cli import main

if __name__ == "__main__":
    sys.argv[0] = "tl-reward"  # which a run then names as what made it
    sys.exit(main())
