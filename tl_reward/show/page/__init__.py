"""A run as one HTML page."""

from tl_reward.show.page.document import build_page, write_page

__all__ = ["build_page", "write_page"]
