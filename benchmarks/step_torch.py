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


class BandDense(torch.nn.Module):
    """A dense layer with its own weights for each band."""

    def __init__(self, bands: int, inputs: int, units: int) -> None:
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.randn(bands, inputs, units) / inputs**0.5)
        self.bias = torch.nn.Parameter(torch.zeros(bands, 1, units))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[band, row, feature]` to `[band, row, unit]`."""
        return torch.baddbmm(self.bias.to(x.dtype), x, self.kernel.to(x.dtype))


class Path(torch.nn.Module):
    """Norm, an LSTM in both directions, a dense layer, and the residual connection."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(channels)
        self.recurrent = torch.nn.LSTM(channels, units, bidirectional=True)
        self.merge = torch.nn.Linear(2 * units, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[position, row, channel]` to the same."""
        return x + self.merge(self.recurrent(self.norm(x))[0])


class Bands(torch.nn.Module):
    """`models.band_split` without a guide."""

    def __init__(self, case: dict[str, Any]) -> None:
        super().__init__()
        self.groups, self.stack, channels = case["bands"], case["stack"], case["width"]
        self.window = torch.hann_window(256).sqrt()
        counts = [count for count, _ in self.groups]
        widths = [self.stack * width for _, width in self.groups]
        pairs = list(zip(counts, widths, strict=True))
        self.entries = torch.nn.ModuleList(BandDense(n, 3 * w, channels) for n, w in pairs)
        self.hidden = torch.nn.ModuleList(BandDense(n, channels, 2 * channels) for n in counts)
        self.masks = torch.nn.ModuleList(BandDense(n, 2 * channels, 4 * w) for n, w in pairs)
        self.paths = torch.nn.ModuleList(
            Path(channels, units)
            for _ in range(case["layers"])
            for units in (case["units"], case["units"] // 2)
        )
        self.norm = torch.nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, sample]` to `[batch, output, sample]`."""
        options = {"n_fft": 256, "hop_length": 64, "window": self.window}
        mixture = torch.stft(x, **options, return_complex=True)
        batch, bins, frames = mixture.shape
        steps, bands = -(-frames // self.stack), sum(count for count, _ in self.groups)
        padded = sum(count * width for count, width in self.groups)
        y = torch.nn.functional.pad(mixture, (0, steps * self.stack - frames, 0, padded - bins))
        size = y.abs().clamp_min(1e-7)
        scale = size**-0.7
        y = torch.stack([size.log10(), y.real * scale, y.imag * scale], 1)
        parts = y.split([count * width for count, width in self.groups], 2)
        found = []
        for (count, width), part, entry in zip(self.groups, parts, self.entries, strict=True):
            part = part.reshape(batch, 3, count, width, steps, self.stack)
            part = part.permute(2, 0, 4, 1, 5, 3).reshape(count, batch * steps, -1)
            found.append(entry(part))
        y = torch.cat(found).reshape(bands, batch, steps, -1)
        for i, path in enumerate(self.paths):
            if i % 2:
                z = y.reshape(bands, batch * steps, -1)
                y = path(z).reshape(bands, batch, steps, -1)
            else:
                z = y.permute(2, 0, 1, 3).reshape(steps, bands * batch, -1)
                y = path(z).reshape(steps, bands, batch, -1).permute(1, 2, 0, 3)
        y = self.norm(y).reshape(bands, batch * steps, -1)
        parts = y.split([count for count, _ in self.groups])
        found = []
        for (count, width), part, hidden, mask in zip(
            self.groups, parts, self.hidden, self.masks, strict=True
        ):
            part = mask(torch.nn.functional.silu(hidden(part))).float()
            part = part.reshape(count, batch, steps, 4, self.stack, width)
            found.append(part.permute(1, 3, 0, 5, 2, 4).reshape(batch, 4, count * width, -1))
        masks = torch.cat(found, 2)[:, :, :bins, :frames]
        voices = torch.complex(masks[:, :2], masks[:, 2:]) * mixture[:, None]
        made = torch.istft(voices.flatten(0, 1), **options, length=x.shape[1])
        return made.reshape(batch, 2, -1)


def main(case: dict[str, Any]) -> None:
    """Serves the training step of `case`, a `benchmarks.step.Case`."""
    torch.manual_seed(0)
    kind = Bands if case["bands"] else Convolutions if case["repeats"] else Network
    model = kind(case)
    # The fused version is PyTorch's fastest on CPUs.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    if case["bands"]:
        x = 0.05 * torch.randn(case["batch"], 64 * case["frames"])
        y = 0.05 * torch.randn(case["batch"], 2, 64 * case["frames"])
    else:
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
