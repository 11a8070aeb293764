"""What people look at, from the study alone: tables, one page, comparisons, pictures of poses.

`tables` is `posetune show`; `page` puts `charts`, `pruning` and what `best` finds of the best trial
into one HTML file; `comparison` sets sweeps side by side; `handle` is a sweep from Python.
"""
