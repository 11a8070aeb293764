"""Which machines does a sweep have, what fits on them, and what would fail there?

Before a sweep, `plan` forecasts what it takes, and `preflight` asks every node with `probe`. While
it runs, `placement` finds room for a trial, `gpu_sharing` measures how many share a GPU, and
`cluster_room` watches nodes that come and go.
"""
