"""Where are the events of a sweep kept, and who may write them?

Main path: `database.open_database` gives a `Database`, with the tables of `schema`; `journal`
writes and reads events; only the holder of the `lease` writes.
"""
