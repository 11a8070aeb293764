"""What does each command take and print? One module a command or group, named after it.

There are as many modules as commands: whoever knows a command knows its file, and none needs
another.
"""
