"""How do I start a sweep, steer it and end it?"""
