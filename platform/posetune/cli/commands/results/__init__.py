"""What does a sweep do, what has it found, and who is told of it?"""
