"""How are the grouped convolutions of stacked students with a stride of 2 computed the fastest on a GPU?

By cuDNN as they are; at all positions, of which every second is kept, or for 1x1 kernels only where they are kept; and,
for 3x3 kernels, as 2x2 ones on maps of four times the channels. Microseconds of a forward and its backward for 64
images, as one CUDA graph. ``strides.csv`` gets a row for each size; a quarter of a minute on an H100:

    python docs/results/gpu/strides.py
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

FILE = Path(__file__).parent / "strides.csv"
IMAGES, REPEATS, REPLAYS = 64, 4, 5
SIZES = ((8, 16, 32), (8, 32, 16), (8, 64, 32), (8, 128, 16), (32, 16, 32), (32, 32, 16))
"""Students, channels of each, and height and width of their maps."""
FORMATS = {
    "bfloat16 channels-last": (torch.bfloat16, torch.channels_last),
    "float32 channels-last": (torch.float32, torch.channels_last),
    "float32 contiguous": (torch.float32, torch.contiguous_format),
}


def as_it_is(maps: Tensor, weight: Tensor, students: int) -> Tensor:
    """Convolve with a stride of 2."""
    return F.conv2d(maps, weight, None, 2, weight.shape[-1] // 2, 1, students)


def at_positions(maps: Tensor, weight: Tensor, students: int) -> Tensor:
    """Convolve without a stride, at all positions or, where they do not look at each other, at every second."""
    if weight.shape[-1] == 1:
        return F.conv2d(maps[..., ::2, ::2], weight, groups=students)
    return F.conv2d(maps, weight, None, 1, 1, 1, students)[..., ::2, ::2]


def unshuffled(maps: Tensor, weight: Tensor, students: int) -> Tensor:
    """Convolve maps of four times the channels, each a quarter of the positions, by 2x2 kernels."""
    layout = torch.channels_last if maps.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    quarters = F.pixel_unshuffle(F.pad(maps, (1, 1, 1, 1)), 2).contiguous(memory_format=layout)
    out, channels = weight.shape[:2]
    taps = F.pad(weight, (0, 1, 0, 1)).reshape(out, channels, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4)
    kernels = taps.reshape(out, 4 * channels, 2, 2).contiguous(memory_format=layout)
    return F.conv2d(quarters, kernels, None, 1, 0, 1, students)


def microseconds(work: Callable[[], object]) -> float:
    """Return what one of several in a CUDA graph takes."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            work()
    graph.replay()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(REPLAYS):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return round(1e3 * start.elapsed_time(end) / REPEATS / REPLAYS, 1)


def measure(numbers: str, students: int, channels: int, size: int, kernel: int) -> dict[str, object]:
    """Return a row of the file."""
    dtype, layout = FORMATS[numbers]
    maps = torch.randn(IMAGES, students * channels, size, size, device="cuda", dtype=dtype)
    weight = torch.randn(2 * students * channels, channels, kernel, kernel, device="cuda", dtype=dtype)
    given = [values.contiguous(memory_format=layout).requires_grad_() for values in (maps, weight)]
    upstream = torch.randn_like(as_it_is(*given, students))
    ways = [as_it_is, at_positions] + [unshuffled] * (kernel == 3)
    found = {
        way.__name__: microseconds(
            partial(lambda way: torch.autograd.grad(way(*given, students), given, upstream), way)
        )
        for way in ways
    }
    about = {"numbers": numbers, "students": students, "channels": channels, "size": size, "kernel": kernel}
    return {**about, **found, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__}


def main() -> None:
    """Measure and write the file."""
    rows = []
    for numbers in FORMATS:
        for students, channels, size in SIZES if numbers.startswith("bfloat16") else ((8, 16, 32), (8, 64, 32)):
            rows += [measure(numbers, students, channels, size, kernel) for kernel in (3, 1)]
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), restval="")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
