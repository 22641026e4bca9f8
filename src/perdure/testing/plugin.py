"""A pytest plugin: the simulated world and stores as fixtures."""
