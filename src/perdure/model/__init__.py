"""Nouns: what perdure speaks of, frozen and typed.

Owns ids, durations, payloads, tasks, workflows, graphs, facts, messages, commands, runs and failures.
Promises: no I/O, no clock, no chance; every value that is stored is a msgspec struct.
May import: errors, settings.
"""
