"""What makes the training step fast on a GPU?

`layers.fuse` and `rendering.fuse_renderer` put Triton programs (`kernels`) where a network or a
renderer has torch's operations; `streams` lets parts of a step run beside each other; `graph`
records a step once and replays it. `selfpose.training.acceleration` alone decides what is used.
"""
