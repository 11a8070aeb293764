"""What does each command take and print? One module a command or group, named after it."""
