"""How does a sweep become one page of HTML?

Main path: `page` collects what a page says as `blocks`; a template turns them into HTML. Every
chart is there twice, a picture of `charts` and a figure of `interactive` or `interactive_search`,
of the same `series`; `scales` turns values into places along an axis.
"""
