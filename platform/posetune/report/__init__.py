"""How do people see what a sweep has found, from the study alone?

`tables` makes what `posetune show` prints, with the `leaderboard`; `sweep_json` is the same for
machines. `findings` has what a sweep has found out beside its best trial; `pages` puts charts, the
findings and the results of `best` about the best trial into one HTML file. `comparison` sets sweeps
side by side, and `handle` gives a sweep to Python. `models` is about one model instead of a sweep.
`wording` says names, numbers and durations for all of them.
"""
