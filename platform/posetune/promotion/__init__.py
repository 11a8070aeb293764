"""Which model deserves an alias in the registry?

Main path: `decision.promote` takes the best trial that reached a sweep's last rung (or the best of
the finalists, trained again with further seeds), measures its best and its last epoch on all of
validation, makes a version of the better one (`registry`, `model_code`, `models`), asks the gate
and moves the alias (`aliases`). `request` says what is asked, `judging` has finalists, validation,
gate, and how often a test split was opened.
"""
