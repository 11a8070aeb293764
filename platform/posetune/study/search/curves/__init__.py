"""Where will the learning curves of a sweep end, and what follows from that?

`data` turns reports into what `model` sees, a Gaussian process over settings and epochs; `search`
proposes points by it, `thaw` pauses trials, and `gain` estimates what is left to gain.
"""
