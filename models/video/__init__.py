"""From a video's bytes to sampled frames with their real presentation times, within limits. `probe` and `read` do it.

The way of a video: `claims` reads its outside; `container` opens it and checks it against the limits; `timeline` lists
the times of its frames; `clip` chooses frames by time; `pictures` decodes them. Only resizing imports torch.
"""

from models.video.clip import Clip, Sampling, VideoFacts, choose, fit, probe, read, resized
from models.video.container import Limits

__all__ = ["Clip", "Limits", "Sampling", "VideoFacts", "choose", "fit", "probe", "read", "resized"]
