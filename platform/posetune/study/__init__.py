"""What has happened to a sweep, and what does it mean?

Every event stands in one relational database, and everything else is derived from them.

Main path: `events` are what can happen, `state` alone says what they mean, `decisions` makes the
next one; `driving.sweep.SweepRun` is the sweep as its driver sees it: it commits one event per
transaction and applies it; `reading` gives the `view` that a reader has of it: the same events,
folded in the same way.

`tables` keeps the events and `old` reads those of the version before; `search` says which
parameters come next and which trials are cut; `acts` are what people do to a sweep; `sharing` says
how sweeps share a cluster; `forecasting` says what is still to come.
"""
