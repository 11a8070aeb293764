"""How do pictures and masks get into a store, and out of it as the model's input?

`photographs` reads files by `decoding`, with `foreground` for masks; `encodings` packs pictures
into a store's rows, and `images` brings them from there to a network.
"""
