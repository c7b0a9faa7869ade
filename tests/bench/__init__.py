"""Measurements: one JSON object a line, each a figure of one run on one machine against a stated baseline."""
