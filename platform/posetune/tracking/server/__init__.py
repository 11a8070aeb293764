"""Where is MLflow, and how is it reached?

Main path: `connection.connect` makes a quiet client of the server or store that a home names, with
`moved_home` for a store whose home was moved; `ui` serves MLflow's pages on it.
"""
