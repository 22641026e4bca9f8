"""Decisions: which fact leads to which command, purely.

Owns the deciders (flow, graph), the loop that flows run on, the table of moves, retries, settling and
compensation, and the audit.
Promises: the same facts give the same commands, live and on replay; no clock, no chance, no I/O.
May import: authoring, model, errors, settings. Only flow, futures and loop may build on asyncio's loop interface.
"""
