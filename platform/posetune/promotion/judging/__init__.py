"""Is a sweep's best checkpoint good enough to be promoted?

`finalists` trains the best trials again, `validation` scores them on validation, `test_looks`
counts how often the test split was opened, `gate` gives the verdict, and `verdict_table` says it.
"""
