"""How good are the answers, and do they come from the video? `python -m training.evaluate --help`."""
