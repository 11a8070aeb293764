"""How do people see what a sweep has found, from the study alone?

`tables` makes what `posetune show` prints. `page` puts `charts`, `pruning` and the results of
`best` about the best trial into one HTML file. `comparison` sets sweeps side by side, and `handle`
gives a sweep to Python. `evaluation` prints and writes what a model comes to on a split, `speed`
how fast it is.
"""
