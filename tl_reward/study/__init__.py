"""What does arXiv 2606.13209 claim, and does it hold here? Every cell of a matrix of reward models is computed once; every
table and verdict comes from the cells."""
