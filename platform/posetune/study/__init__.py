"""The durable truth of a sweep: every event in one relational database, everything else derived.

Main path: `database.open_database` gives a `Database`; `journal` appends one event per transaction
and reads them back; `sweep.SweepRun` is the sweep as its driver sees it: it asks, reports, decides
rungs and reconciles after a kill; `view` is the sweep as a reader sees it.
"""
