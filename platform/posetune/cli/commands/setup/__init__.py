"""How do I make data and a sweep file, and try both before anything is spent?"""
