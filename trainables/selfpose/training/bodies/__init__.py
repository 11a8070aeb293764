"""What 2D pose does a foreground mask show? Read by a network that has only seen drawn bodies.

Ours, not the paper's, and off by default. Masks are unlabelled, and show the person far better than
thin skeletons do; what is missing is somebody who can read them.

Main path: `drawing.BodyRenderer` draws poses of the prior, which belong to no image, as bodies with
limbs of people's widths (`shapes`). `reading.train_reader` teaches a small network to read these
drawings, and `reading.read_masks` lets it read the masks of the training images: a guess at the
pose of every image, without any truth. `pairs.train_pairs` teaches Phi and Omega image, drawn
skeleton and pose together. The stage `bodies` (`training.stages.bodies`) does all this once for all
trials, and the loss term `read` keeps a trial's poses near the guesses. `distortion` scales, turns
and shifts crops and poses together.
"""
