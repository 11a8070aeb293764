"""How do sweeps of one study share a cluster?

Each driver writes down what it holds and wants (`demands`), reads what the others do, and computes
from it how many slots it is entitled to (`entitlements`); `turn` is what a driver's loop asks. No
process decides for the others: all compute the same from the same rows.
"""
