"""What makes the training step fast on a GPU?

`kernels` are Triton programs for what is not a matrix product, `streams` lets parts of a step run
beside each other, `graph` records a step once and replays it.
"""
