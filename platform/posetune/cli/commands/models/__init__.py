"""How good is a model, which one counts, and how do I use it?"""
