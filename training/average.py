"""`python -m training.average OUT DIRECTORY=SHARE DIRECTORY=SHARE …`: the mean of the weights of several checkpoints.

Of runs that go on from one another the mean often answers better than any, and costs no more than one of them (Wortsman
et al., "Model soups", arXiv 2203.05482). Which shares do is told by questions that no run has seen. All other files are
those of the first directory, and so is the manifest, to which is added what was averaged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint import hashes, open_layout
from models.errors import CheckpointError
from models.layout import opened, read_json


def average(out: Path, shares: Mapping[Path, float]) -> None:
    """Writes the checkpoint `out`, as the first of `shares` but for its weights. The shares need not sum to 1.

    Raises:
        CheckpointError: `out` is there, a directory is none of our checkpoints, or two differ in names or shapes.
    """
    if out.exists():
        raise CheckpointError(f"{out} is there already")
    layouts = [open_layout(path) for path in shares]
    for layout in layouts:
        if layout.kind != "ours":
            raise CheckpointError(f"{layout.path} is a checkpoint of the kind {layout.kind!r}; only 'ours' is averaged")
    unfinished = out.with_name(f"{out.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        _write(unfinished, [layout.path for layout in layouts], shares)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(directory: Path, paths: Sequence[Path], shares: Mapping[Path, float]) -> None:
    first = paths[0]
    shutil.copytree(first, directory)
    for file in sorted(path.relative_to(first) for path in first.rglob("*.safetensors")):
        save_file(_mean([path / file for path in paths], list(shares.values())), directory / file)
        (directory / file).chmod(0o644)
    manifest = read_json(first / "manifest.json") if (first / "manifest.json").is_file() else {}
    facts = {**manifest, "mean of": {str(path): share for path, share in shares.items()}, "files": hashes(directory)}
    (directory / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n")


def _mean(files: Sequence[Path], shares: Sequence[float]) -> dict[str, Tensor]:
    """Summed in float32 and kept in the type that the first has."""
    with ExitStack() as stack:
        all_ = [stack.enter_context(opened(file)) for file in files]
        names = set(all_[0].keys())
        for file, other in zip(files, all_, strict=True):
            if set(other.keys()) != names:
                raise CheckpointError(
                    f"{file} and {files[0]} hold other tensors: {sorted(names ^ set(other.keys()))[:3]}"
                )
        return {
            name: _mean_of([one.get_tensor(name) for one in all_], shares, f"{name} of {files[0]}") for name in names
        }


def _mean_of(tensors: Sequence[Tensor], shares: Sequence[float], what: str) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise CheckpointError(f"{what} has not one shape but {sorted(shapes)}")
    total = sum(shares)
    mean = torch.stack([share / total * tensor.float() for share, tensor in zip(shares, tensors, strict=True)]).sum(0)
    return mean.to(tensors[0].dtype)


def _share(text: str) -> tuple[Path, float]:
    path, separator, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not separator or not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not DIRECTORY=SHARE with a share above 0, as in runs/tiny=0.7")
    return Path(path), value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the new checkpoint's directory")
    parser.add_argument("shares", type=_share, nargs="+", metavar="DIRECTORY=SHARE")
    given = parser.parse_args(arguments)
    shares: dict[Path, float] = {}
    for path, share in given.shares:
        shares[path] = shares.get(path, 0.0) + share
    try:
        average(given.out, shares)
    except CheckpointError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{given.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
