"""How are the studies of the version before read, and how is one brought up to date?

`old_tables` are the tables as they were and `old_events` reads today's events from them; `upgrade`
writes them into today's tables.
"""
