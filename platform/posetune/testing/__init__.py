"""For whoever adds a trainable: `conformance` tests any, `toy` is a complete small one."""
