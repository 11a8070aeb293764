"""What do trials share, and is it whole? Products are built once however many ask at once.

Main path: `cache.StageCache.obtain` finds a product by its key, or builds it. `sources` finds the
code that a product depends on, from imports; `manifest` says what a product is and whether it is
intact; `work` keeps how far a building has come, for the next attempt.
"""
