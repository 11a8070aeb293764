"""What does the paper say? The method of Sosa & Hogg (2023), readable alone.

Main path: `losses` has the terms that training minimises; `geometry` lifts, rotates and projects
poses, `renderer` draws them, `flow` is the prior of 2D poses, `skeleton` knows the joint layouts,
`metrics` and `procrustes` say how good a predicted pose is.
"""
