"""What do drawn hands look like, and how do they move?

`procedural_hand` makes motions, posed by `kinematics`; `anatomy` gives the hand its shape.
"""
