"""Which parameters does the next trial get, and which trials are cut?

`sampler` asks Optuna, with the trials of other sweeps that `start_from` finds; `rungs` compares
trials at an epoch; `curves` predicts where they end, and `seed_noise` says how far apart seeds lie;
`seeding` derives every seed from the sweep's.
"""
