"""Which model deserves an alias in the registry?

Main path: `decision.promote` takes a sweep's best trial (or the best of `finalists`, trained again
with further seeds), makes a version of it (`registry`, `model_code`, `models`), asks the `gate` and
moves the alias. `test_looks` counts how often a test split was opened.
"""
