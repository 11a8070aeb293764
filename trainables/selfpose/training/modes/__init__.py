"""What is a step of each mode, as it is trained?

`complete`, `lifting` and `supervised` each hold one class behind `step(batch)`. `terms` computes
each loss term of a step as soon as all that it takes is known. `training.reference` says the same
in plain equations.
"""
