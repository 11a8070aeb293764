"""How is one trial trained, without Ray?

Main path: `run.TrialRun` builds the stages, loads the newest whole checkpoint (`checkpoints`) and
trains epoch by epoch, in one process or in several (`processes`). `single` runs one trial for a
user, `reproduce` runs one again from its record, and `exported` makes the model of one of its
epochs. `worker` makes a process as new before each trial.
"""
