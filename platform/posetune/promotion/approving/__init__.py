"""Who agrees that an alias moves, where the home asks for a second person?"""
