"""Workloads W1 to W9, each measured as a ratio to a limit of this machine taken in the same run."""
