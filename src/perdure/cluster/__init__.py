"""Who may act: a node's lease, the even share of shards, and the life of a node among others.

Owns a node's own view of its lease, the hash that puts a run into a shard, and who takes and gives which shards.
Promises: a node stops acting before its lease ends; nodes that see the same never want the same; no shard moves
without need. Safety rests on none of this: the fence in the store's commits alone keeps a stale node out.
`lease` and `partition` are pure; `membership` is the driver over `state.leases`.
May import: state, model, settings, errors, clock.
"""
