"""From videos to the cues that questions are made of: estimated where nothing is rendered. See README.md."""
