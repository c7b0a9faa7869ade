"""What π³ costs: `python -m training.cues.cost` runs it once, at full size with random weights, and prints JSON.

It refuses where the memory that is free would not hold it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence

import torch

from models.pi3 import Pi3, Pi3Config
from training.arguments import positive

LEAST_FREE = 12.0  # GiB: weights are 4, and activations of 32 frames about as much again


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.cues.cost", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=positive, default=32)
    parser.add_argument("--size", default="140x84", metavar="WxH", help="pixels, multiples of 14")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--least-free", type=float, default=LEAST_FREE, help="GiB of memory that must be free")
    given = parser.parse_args(arguments)
    if (free := free_memory()) < given.least_free:
        sys.stderr.write(f"cost: {free:.1f} GiB of memory are free; {given.least_free:.1f} are needed\n")
        return 2
    width, height = (int(side) for side in given.size.split("x"))
    sys.stdout.write(json.dumps(cost(given.frames, width, height, given.device, getattr(torch, given.dtype))) + "\n")
    return 0


def cost(frames: int, width: int, height: int, device: str, dtype: torch.dtype) -> dict[str, object]:
    """Seconds of one pass, and the most memory that the process had, in GiB."""
    started = time.monotonic()
    model = Pi3(Pi3Config.published()).to(device=device, dtype=dtype).eval().requires_grad_(False)
    made = time.monotonic() - started
    images = torch.rand(1, frames, 3, height, width, device=device)
    started, cpu = time.monotonic(), time.process_time()
    with torch.inference_mode():
        found = model(images)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "frames": frames,
        "size": [width, height],
        "patches": frames * (width // 14) * (height // 14),
        "dtype": str(dtype),
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "seconds_to_make": round(made, 2),
        "peak_gib": round(_peak(device), 2),
        "finite": bool(found.points.isfinite().all()),
        "hardware": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def free_memory() -> float:
    """GiB that the system can give without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) / 2**20


def _peak(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
