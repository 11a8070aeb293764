"""How does MLflow come to show what the study says?

Main path: `tracker.Tracker` ships a sweep beside its driver, and `projection.ship` does the same
once. Both bring MLflow up to date with what `content` says about a sweep, and `artifacts` uploads
its files. `server` reaches MLflow, a server or a home's own store. MLflow is imported here and in
`promotion` alone, and only when one of these modules is imported.
"""
