"""How does a person steer a sweep?

Main path: `asking.ask` writes an `act` down as one of the `requests` of a sweep; the driver that
holds the lease asks `deciding` which event it becomes and appends that; `folding` is the part of
the one fold that says what such an event means.
"""
