"""MLflow as a projection of the study, and the model registry.

Main path: `tracker.Tracker` ships a sweep beside its driver, `projection.ship` does the same
once; both bring MLflow up to date with what `content` says about a sweep and `artifacts` uploads.
`promotion.promote` makes a version of the best trial and asks the gate. MLflow is imported here and
nowhere else, and not before one of these modules is.
"""
