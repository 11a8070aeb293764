"""What does a driver do next with a sweep?

`decider` answers with events that have not happened yet. Four rules help it: `budget_rule` says
which trial may train on, `pruner_rule` which one is cut, paused or resumed, `letting_go` which
checkpoints nothing needs any more, and `patience_rule` what the rest of the sweep may gain.
"""
