"""How is each dataset read as its users have it?

There is one module a dataset, with the dataset's protocol in a module beside it.
"""
