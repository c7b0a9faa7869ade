"""A child of the zygote: takes a job, gives up every right, does the job, answers, takes the next.

Until it is confined it has seen nothing of a video; from then on nothing that it says is trusted by anyone.
"""

from __future__ import annotations

import io
import mmap
import os
import socket
from typing import BinaryIO, Protocol

import av
import numpy as np

from models import video
from models.errors import InputError
from serve.sandbox import jail, wire
from serve.sandbox.wire import Job

MAX_JOB = 1 << 16


class Decode(Protocol):
    """What a child does with its video; `memory` is where frames go. The answer is one of `wire`'s."""

    def __call__(self, file: BinaryIO, job: Job, memory: mmap.mmap | None) -> bytes: ...


def decode(file: BinaryIO, job: Job, memory: mmap.mmap | None) -> bytes:
    """The job of the service."""
    try:
        if job.sampling is None:
            return wire.seen(video.probe(file, job.limits))
        return wire.decoded(video.read(file, job.sampling, job.limits, allocate=lambda shape: _frames(shape, memory)))
    except InputError as error:
        return wire.refused(error)
    except MemoryError:
        return wire.failed("memory", "MemoryError")
    except Exception as error:  # whatever a library makes of a damaged file: the process ends in any case
        return wire.failed("other", type(error).__name__)


def work(channel: socket.socket, zygote: int, decode: Decode) -> None:
    """The whole life of a child; the caller exits after it. `zygote`: the process id of its parent."""
    jail.become_nobody()
    jail.end_with_parent(zygote)  # after the change of user, which would undo it
    jail.seal_off()
    jail.keep_only([channel.fileno()])
    memory = None
    confined = False
    while True:
        text, descriptors, _, _ = socket.recv_fds(channel, MAX_JOB, 2)
        if not text:  # the parent is gone
            return
        job = Job.from_json(text)
        if job.frame_bytes:
            memory = mmap.mmap(descriptors[1], job.frame_bytes)
            os.close(descriptors[1])
        with io.BufferedReader(io.FileIO(descriptors[0], "rb"), 1 << 17) as file:
            if not confined:
                jail.confine(job.memory_bytes, job.cpu_seconds, job.videos)
                confined = True
            if job.videos > 1:
                jail.allow_cpu(job.cpu_seconds)
            os.write(channel.fileno(), decode(file, job, memory))
        if job.videos == 1:
            return


def _frames(shape: tuple[int, int, int, int], memory: mmap.mmap | None) -> np.ndarray:
    if memory is None:
        raise MemoryError
    return np.frombuffer(memory, np.uint8, int(np.prod(shape))).reshape(shape)


def warm_up() -> None:
    """Imports all that decoding needs: a child cannot open a file any more, so that it cannot import anything."""
    import torch

    # The machine's cores are shared by as many children; one thread gives the same pixels as many.
    torch.set_num_threads(1)
    rehearse(64, 48)


def rehearse(width: int, height: int) -> None:
    """Decodes a film of two frames, one that is cut off, and a text, so that what comes in on first use is there."""
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10, width=width, height=height, pix_fmt="yuv420p")
        for shade in (0, 255):
            picture = np.full((height, width, 3), shade, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    for data in (film.getvalue(), film.getvalue()[:-100], b"no video"):
        for sampling in (video.Sampling(2, min_pixels=784, max_pixels=3136), None):
            job = Job(video.Limits(), sampling, MAX_JOB, 0, 0)
            decode(io.BytesIO(data), job, mmap.mmap(-1, MAX_JOB))
