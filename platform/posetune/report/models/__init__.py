"""What does one model come to: on a split, on pictures, and how fast?

`evaluation` prints and writes the metrics of a model on a split, `prediction` gives its poses of
the pictures that `frames` finds in files and videos, and `speed` says how many it predicts a
second.
"""
