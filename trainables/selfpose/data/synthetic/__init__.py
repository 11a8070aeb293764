"""How are people and hands drawn where there are no photographs?

Main path: `drawing` turns `motions` into pictures with `rendering`, which places `capsules` (the
shapes of `bodies` or `hands`) in `rooms`, seen by `cameras`, with `occluders` in front.
"""
