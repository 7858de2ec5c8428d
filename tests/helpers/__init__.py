"""What tests share."""

from helpers import shape_checks as shape_checks  # jaxtyping's plugin for pytest imports `helpers`, and looks for it there
