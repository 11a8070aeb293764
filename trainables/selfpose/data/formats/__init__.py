"""How is each dataset read from the files that its users have?

There is one module per dataset, with the dataset's protocol in a module beside it.
"""
