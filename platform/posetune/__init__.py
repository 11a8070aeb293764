"""posetune: sweeps of complete pose-network trainings, none of them lost.

`cli` reads a sweep file, `execution` runs its trials on Ray, `study` remembers everything,
`tracking` shows it in MLflow, and a trainable knows none of them (it sees `posetune.api` only).
"""
