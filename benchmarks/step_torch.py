"""The child process of `benchmarks.step` for the training step on PyTorch.

It runs in the environment of the alternatives, so it imports nothing from this project that needs
more than the standard library.
"""

import json
import sys
import time
from typing import Any

import torch

from benchmarks import children


class Network(torch.nn.Module):
    """`torch.nn.LSTM`, which uses oneDNN's or its own fused cells, and a dense layer."""

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__()
        both = case["network"] == "blstm"
        self.recurrent = torch.nn.LSTM(
            case["bins"], case["units"], case["layers"], batch_first=True, bidirectional=both
        )
        self.dense = torch.nn.Linear(case["units"] * (1 + both), 2 * case["bins"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, frame, bin]` to masks `[batch, frame, output · bin]`."""
        return torch.sigmoid(self.dense(self.recurrent(x)[0]).float())


class Block(torch.nn.Module):
    """A block of `models.tcn`; a sum of shifted products is faster than a convolution here."""

    def __init__(self, width: int, units: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = torch.nn.LayerNorm(width)
        self.widen = torch.nn.Linear(width, units)
        self.taps = torch.nn.Parameter(torch.randn(3, units) / 2)
        self.bias = torch.nn.Parameter(torch.zeros(units))
        self.narrow = torch.nn.Linear(units, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, step, width]` to the same."""
        y = torch.nn.functional.silu(self.widen(self.norm(x)))
        steps, reach = y.shape[1], self.dilation
        padded = torch.nn.functional.pad(y, (0, 0, reach, reach))
        taps, bias = self.taps.to(y.dtype), self.bias.to(y.dtype)
        before, after = padded[:, :steps], padded[:, 2 * reach : 2 * reach + steps]
        y = before * taps[0] + y * taps[1] + after * taps[2] + bias
        return x + self.narrow(torch.nn.functional.silu(y))


class Convolutions(torch.nn.Module):
    """`models.tcn` with a stack of two frames and ReLU masks."""

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__()
        width, bins = case["width"], case["bins"]
        self.entry = torch.nn.Linear(2 * bins, width)
        self.blocks = torch.nn.Sequential(
            *[
                Block(width, case["units"], 2**i)
                for _ in range(case["repeats"])
                for i in range(case["layers"])
            ]
        )
        self.norm = torch.nn.LayerNorm(width)
        self.head = torch.nn.Linear(width, 4 * bins)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, frame, bin]` to masks `[batch, frame, output · bin]`."""
        batch, frames, bins = x.shape
        x = torch.nn.functional.pad(x, (0, 0, 0, frames % 2)).reshape(batch, -1, 2 * bins)
        masks = self.head(self.norm(self.blocks(self.entry(x)))).float()
        return torch.relu(masks).reshape(batch, -1, 2 * bins)[:, :frames]


def main(case: dict[str, Any]) -> None:
    """Serves the training step of `case`, a `benchmarks.step.Case`."""
    torch.manual_seed(0)
    model = Convolutions(case) if case["repeats"] else Network(case)
    # The fused version is PyTorch's fastest on CPUs.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x = torch.randn(case["batch"], case["frames"], case["bins"])
    y = torch.rand(case["batch"], case["frames"], 2 * case["bins"])
    narrow = case["precision"] == "bfloat16"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            masks = model(x)
        torch.nn.functional.mse_loss(masks, y).backward()
        optimizer.step()

    def steps(count: int) -> float:
        step()
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count

    children.serve(
        {
            "steps": steps,
            "about": lambda: {
                "parameters": sum(p.numel() for p in model.parameters()),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "capability": torch.backends.cpu.get_cpu_capability(),
            },
            "matmul": _matmul,
            "tanh": _tanh,
        }
    )


def _matmul(m: int, k: int, n: int, seconds: float) -> float:
    a, b = torch.randn(m, k), torch.randn(k, n)
    return children.fastest(lambda: torch.mm(a, b), seconds)


def _tanh(rows: int, columns: int, seconds: float) -> float:
    a = torch.randn(rows, columns)
    return children.fastest(lambda: torch.tanh(a), seconds)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
