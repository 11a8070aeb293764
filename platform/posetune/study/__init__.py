"""The durable truth of a sweep: every event in one relational database, everything else derived.

Main path: `database.open_database` gives a `Database`; `events` are what can happen, `state` alone
says what they mean, `decisions` makes the next one; `sweep.SweepRun` is the sweep as its driver
sees it: it commits one event per transaction through `journal`, and applies it; `view` is the sweep
as a reader sees it: the same events, folded in the same way.
"""
