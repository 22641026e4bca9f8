"""Promises: where facts are kept.

Owns the Store protocol, the memory reference, SQLite (with its SQL), the file lock, roster and high-water mark, blobs.
Promises: a commit is whole or nothing; what was acknowledged is found again; it returns facts and
bytes and knows no decider and no policy.
May import: model, errors, clock, settings.
"""
