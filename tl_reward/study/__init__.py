"""The study of arXiv 2606.13209 over a matrix of reward models: every cell computed once, every table and verdict from the cells."""
