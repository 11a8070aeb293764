"""How long will a sweep still take, and what will it come to?

`forecast` simulates what is left of a sweep many times; `forecast_model` draws the trials that it
may still meet.
"""
