"""What is seen: a run's story in sentences, and the progress of a node on a terminal.

Owns the turning of histories and figures into text for people.
Promises: it changes nothing, and costs nothing where nobody looks.
May import: kernel, state, authoring, model, settings, errors, clock; never runtime, which gives the figures.
"""
