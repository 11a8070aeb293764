"""Shared pre-computation: content-addressed, built once however many ask at once, verified.

`cache.StageCache.obtain` is the way in; `digest` knows how folders and keys are digested.
"""
