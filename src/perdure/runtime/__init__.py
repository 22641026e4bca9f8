"""The shell, where pure rooms meet the world.

Owns the node (its loop and its batches), `advance` (the one door through which a run changes), loading and
replay, the pools that run attempts, and the client.
Promises: commit, then act; nothing acknowledged is lost; one bad run never stops its neighbours.
May import: everything below; never app or cli.
"""
