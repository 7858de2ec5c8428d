"""The page of a run, by the name that scripts know it by; it is made in `show.page`."""

from tl_reward.show.page import build_page, write_page

__all__ = ["build_page", "write_page"]
