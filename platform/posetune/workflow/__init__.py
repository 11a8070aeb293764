"""What does a person start with one call, from a terminal or from Python?

`sweep.run_sweep` runs a sweep file to its end, `train.train` trains one trial in this process and
`promote.promote` registers a sweep's best model. The commands are thin over these, and
`posetune.run_sweep`, `posetune.train` and `posetune.promote` are the same functions.
"""
