"""What does a driver do with a sweep, without Ray?

Main path: `sweep_start` starts a sweep or finds it as it was started, and `sweep.SweepRun` commits
what happens to it, one event per transaction. `clock` tells the time within the life of a driver.
"""
