"""The main job on real input: `python -m demo`, or `make demo`.

Four parts, each through the command line in processes of their own: a graph over documents, the order flow,
a recorded execution of a scientific workflow, and the same one killed and resumed.
"""
