"""How is one trial trained?

Main path: `trial` holds the networks, data and random numbers of a trial and calls the `step` of
its mode (`modes`) for each batch. `reference` is that step as the equations say it: read it first.
`stages` makes what trials share; `checkpoint` writes the state to disk and `health` says when a
training is lost. `acceleration` alone knows `selfpose.cuda`.
"""
