"""What does a driver do next with a sweep?

`decider` answers with events that have not happened yet; `budget_rule` says for it which trial may
train on, so that the budget is kept.
"""
