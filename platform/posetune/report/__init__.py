"""Tables (and, later, pages) about a sweep, from the study alone: `tables` is all of it."""
