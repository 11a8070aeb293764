"""What do trials share, so that it is trained once and not by every trial?

baselines    what guesses without learning are worth, on the validation frames
flow         the prior of 2D poses: its principal components and its normalising flow
keypoints    Omega, taught to read rendered prior poses (with images, pretrain_keypoints > 0)
silhouette   Phi, taught to output foreground masks (with images, pretrain_silhouette > 0)
bodies       the poses that are read in the masks, and Phi and Omega taught by them (with images,
             pretrain_bodies > 0)

Main path: `needed.needed_stages` lists the stages of a configuration; `part` takes the steps of one
and lets them be broken off. Each stage is a module with
`READS`, the fields of the configuration that change its product, and `build`, which is handed those
fields and no others. A product's key holds these fields and the source of every module that the
stage's module imports. So no stage imports `selfpose.config`, nor a network that it does not train:
a change there would build its product again for nothing.
"""
