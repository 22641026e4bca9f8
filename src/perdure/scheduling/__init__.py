"""Which next: the order in which attempts that are due begin.

Promises: pure; first in, first out, within each task's own bound.
May import: model, errors, settings.
"""
