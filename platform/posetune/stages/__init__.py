"""What do trials share, and is it whole? Products are built once however many ask at once.

Main path: `cache.StageCache.obtain` finds a product by its key, or builds it; `sources` finds the
code that a product depends on, from imports.
"""
