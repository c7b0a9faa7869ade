"""The real service for minutes to an hour: replicas that die, ten times the load, strangers' files, and memory.

`make soak` runs all of it. Every figure is printed, and what must hold is asserted.
"""
