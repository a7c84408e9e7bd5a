"""Errors that callers may want to tell apart from others."""


class UnreadableModel(ValueError):
    """What was given as a model is none, or must not be read: one sentence with the remedy."""
