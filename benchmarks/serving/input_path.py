"""The input path without HTTP: the forward pass, decoding, and both in one loop, as tutorials run them and as we do.

ResNet-18 at 64 × 64 from JPEG. `--threads 1 2`, `--batches 1 8 32 64`, `--precisions float32 bfloat16`. The best
"decode + forward" of a precision is its combined limit: what a server on the same cores cannot exceed.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from app.networks.head import Head
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput
from app.serving.executions import Executions
from app.serving.ways import Options

LABELS = tuple(range(1, 11))
SIZE = 64
CPU = torch.device("cpu")


def photo(width: int, height: int, seed: int) -> bytes:
    """A smooth JPEG of random colours."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def resnet18() -> Network:
    """The classifier as it comes with base weights, with numbers drawn at random."""
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18(weights=None).eval()
    backbone.fc = nn.Identity()
    spec = NetworkSpec("resnet18", ImageInput(size=SIZE, channels=3), LABELS, weights="imagenet")
    return Network(spec, backbone, Head(512, LABELS, 0), 512).eval()


def rate(step: Callable[[], Any], items: int, seconds: float) -> float:
    """Items a second, once warm."""
    for _ in range(2):
        step()
    started = time.perf_counter()
    done = 0
    while done < 2 or time.perf_counter() - started < seconds:
        step()
        done += 1
    return round(items * done / (time.perf_counter() - started), 1)


def decoding(seconds: float) -> dict[str, float]:
    """Microseconds a picture, one thread."""
    preprocessor = preprocessor_for(resnet18().spec)
    found = {}
    for width, height in ((SIZE, SIZE), (500, 375)):
        for name, decode in (("Pillow as in tutorials", by_tutorial), ("ours", preprocessor.decode)):
            step = partial(decode, photo(width, height, 0))
            found[f"{name}, {width} x {height}"] = round(1e6 / rate(step, 1, seconds), 1)
    return found


def by_tutorial(content: bytes) -> Tensor:
    """Decode with Pillow, and check nothing."""
    picture = Image.open(io.BytesIO(content)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def forward(threads: int, batch: int, precision: str, seconds: float, executions: Executions) -> dict[str, Any]:
    """Images a second of this many threads."""
    torch.set_num_threads(threads)
    network = resnet18()
    preprocessor = preprocessor_for(network.spec)
    execution = executions.of(network)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    contents = [photo(SIZE, SIZE, seed) for seed in range(batch)]
    items = [preprocessor.decode(content) for content in contents]
    stacked = preprocessor.stacked(items)
    with torch.inference_mode():
        inputs = preprocessor.normalised(stacked).to(dtype).contiguous(memory_format=torch.channels_last)
        plain = resnet18().backbone.to(dtype).to(memory_format=torch.channels_last)
        raw = rate(lambda: plain(inputs), batch, seconds)

    def combined() -> Tensor:
        return execution(
            preprocessor.stacked([preprocessor.decode(content) for content in contents]), preprocessor.normalised
        )

    return {
        "threads": threads,
        "batch": batch,
        "precision": precision,
        "ways": execution.ways,
        "channels_last, forward": raw,
        "ours, forward": rate(lambda: execution(stacked, preprocessor.normalised), batch, seconds),
        "ours, decode + forward": rate(combined, batch, seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"decode_microseconds": decoding(asked.seconds), "forward": []}
    table = Table("threads", "batch", "precision", "few, many", "channels_last", "ours", "with decode")
    for threads in asked.threads:
        torch.set_num_threads(threads)
        for precision in asked.precisions:
            executions = Executions(CPU, Options(precision=precision))
            for batch in asked.batches:
                row = forward(threads, batch, precision, asked.seconds, executions)
                found["forward"].append(row)
                table.add_row(*(", ".join(one) if isinstance(one, tuple) else str(one) for one in row.values()))
    console = Console(stderr=True)
    console.print(found["decode_microseconds"])
    console.print(table)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
