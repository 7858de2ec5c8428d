"""What does arXiv 2606.13209 claim, and does it hold here? The work is cut into cells, which are computed once each and kept on disk; every
table and verdict comes from them."""
