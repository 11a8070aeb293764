"""What do drawn people look like, and how do they move?

`procedural` makes motions from `activities`, `postures` and `angle_tracks`, posed by `kinematics`;
`anatomy` gives the body its shape and `clothing` its looks.
"""
