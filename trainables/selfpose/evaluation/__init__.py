"""How good is a trained model, and compared with what?

Main path: `evaluate.evaluate_exported` scores every frame of a split (`scores`) beside the trivial
`baselines`, averages (`averages`), and writes `tables`, `figures` and `pictures`.
"""
