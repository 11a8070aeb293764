"""What does a driver do with a sweep, without Ray?

Main path: `sweep_start` starts a sweep, `continuing` reads where one stands that goes on, and
`sweep.SweepRun` commits what happens to it, one event per transaction. `released` remembers the
checkpoints that are to be deleted, `best_trial` says which trial is ahead, and `clock` tells the
time within the life of a driver.
"""
