"""How is one trial trained?

Main path: `trial` holds the networks, data and random numbers of a trial and calls `step` for each
batch; `stages` and `pretraining` make what trials share; `checkpoint` writes the state to disk and
`health` says when a training is lost. `reference` is the step as the equations say it.
"""
