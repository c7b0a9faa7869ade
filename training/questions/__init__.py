"""From 4D geometry to questions with options: cues in, records out. One engine for rendered and real videos."""
