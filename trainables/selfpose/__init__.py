"""selfpose: the self-supervised 3D human pose network of Sosa & Hogg (2023), complete.

`trainable` is the model as the platform sees it, `training` runs its steps, `networks`, `flow`,
`renderer` and `losses` are the method, `data` is the store that feeds it.
"""
