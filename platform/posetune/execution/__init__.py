"""How do the trials of a sweep run on Ray? No other package imports Ray.

Main path: `driver.run_sweep` opens the sweep's study and gives Ray Tune two thin adapters,
`searcher` and `scheduler`, that ask and report to it; `actor` is a trial on a worker, around
`trial.TrialRun`, which is all of a trial and knows no Ray (`posetune train` uses it directly).
`nodes` is about machines: what they have, what fits on them, what would fail there.
"""
