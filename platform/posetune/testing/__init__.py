"""What helps an author to write and test a trainable?

`example` is the smallest trainable, to start from, and `toy` a complete one. `conformance` has the
tests that every trainable must pass, and `stages` builds stages for tests of one's own.
"""
