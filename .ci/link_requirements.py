"""Links, into the folder of packages that is given, what the tl_reward in it asks for and what that asks for, out of this environment."""

import sys
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def link_requirements(packages: Path) -> int:
    """How many packages there are then, beside tl_reward itself."""
    (own,) = packages.glob("tl_reward-*.dist-info")
    asked = [(Requirement(each), "") for each in PathDistribution(own).requires or ()]
    linked: set[tuple[str, str]] = set()
    while asked:
        needed, of_extra = asked.pop()
        if needed.marker is not None and not needed.marker.evaluate({"extra": of_extra}):
            continue
        found = distribution(needed.name)
        if not needed.specifier.contains(found.version, prereleases=True):
            raise SystemExit(f"{needed} is asked for, and {found.version} is here")
        for extra in {"", *needed.extras} - {extra for name, extra in linked if name == found.name}:
            linked.add((found.name, extra))
            asked += [(Requirement(each), extra) for each in found.requires or ()]
        for file in found.files or ():
            target = packages / file
            if ".." not in file.parts and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(str(found.locate_file(file)))
    return len({name for name, _ in linked})


if __name__ == "__main__":
    print(f"{link_requirements(Path(sys.argv[1]))} packages are what the wheel asks for")
