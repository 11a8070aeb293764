"""How does a sweep become one page of HTML?

Main path: `page` collects what a page says as `blocks`, with the figures of `charts`; a template
turns them into HTML.
"""
