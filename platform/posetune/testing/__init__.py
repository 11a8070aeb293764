"""For whoever adds a trainable: `toy` is a complete small one to start from."""
