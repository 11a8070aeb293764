"""Plain twins of what is fast: the oracles of tests and the rivals of benchmarks."""
