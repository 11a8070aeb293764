"""What does each command take and print? One module a command or group, named after it.

The rooms are the sections of `posetune --help`, and `cli.app` lists what is in each.
"""
