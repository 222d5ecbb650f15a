"""The child process of `benchmarks.separation` for PyTorch models.

It runs in the environment of the alternatives. All models have random weights, take
`[batch, sample]` at 8 kHz and return two voices. Sizes are those of this project's network of
exactly the same kind, if there is one; SepFormer has its own.
"""

import sys
import time
import warnings
from collections.abc import Callable

warnings.filterwarnings("ignore")

import torch  # noqa: E402

from benchmarks import children  # noqa: E402


class Masks(torch.nn.Module):
    """Masks from LSTM layers of 300 units over log-magnitudes of the 256/64 spectrogram."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.recurrent = torch.nn.LSTM(129, 300, 2, batch_first=True, bidirectional=both)
        self.dense = torch.nn.Linear(300 * (1 + both), 2 * 129)
        self.register_buffer("window", torch.hann_window(256))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """`[batch, sample]` to `[batch, source, sample]`."""
        spectrum = torch.stft(waveform, 256, 64, window=self.window, return_complex=True)
        x = torch.log10(spectrum.abs().clamp_min(1e-7)).transpose(1, 2)
        x = torch.sigmoid(self.dense(self.recurrent(x)[0]))
        masks = x.reshape(*x.shape[:2], 2, 129).permute(0, 2, 3, 1)
        voices = (masks * spectrum[:, None]).flatten(0, 1)
        found = torch.istft(voices, 256, 64, window=self.window, length=waveform.shape[-1])
        return found.reshape(-1, 2, waveform.shape[-1])


class SpeechBrain(torch.nn.Module):
    """speechbrain's parts, combined as in its `SepformerSeparation`."""

    def __init__(self, mask_net: torch.nn.Module, filters: int, kernel: int) -> None:
        super().__init__()
        from speechbrain.lobes.models import dual_path

        self.encoder = dual_path.Encoder(kernel, filters)
        self.mask_net = mask_net
        self.decoder = dual_path.Decoder(
            in_channels=filters, out_channels=1, kernel_size=kernel, stride=kernel // 2, bias=False
        )

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """`[batch, sample]` to `[batch, source, sample]`."""
        encoded = self.encoder(waveform)
        masks = self.mask_net(encoded)
        return torch.stack([self.decoder(encoded * mask) for mask in masks], dim=1)


def _asteroid_conv_tasnet() -> torch.nn.Module:
    from asteroid import models

    return models.ConvTasNet(
        2, n_filters=128, kernel_size=40, stride=20, bn_chan=128, hid_chan=256, skip_chan=128,
        n_blocks=7, n_repeats=2, mask_act="relu",
    )  # fmt: skip


def _speechbrain_conv_tasnet() -> torch.nn.Module:
    from speechbrain.lobes.models import conv_tasnet

    return SpeechBrain(conv_tasnet.MaskNet(N=128, B=128, H=256, P=3, X=7, R=2, C=2), 128, 40)


def _sepformer() -> torch.nn.Module:
    from speechbrain.lobes.models import dual_path

    def block() -> torch.nn.Module:
        return dual_path.SBTransformerBlock(
            8, 256, 8, d_ffn=1024, use_positional_encoding=True, norm_before=True
        )

    mask_net = dual_path.Dual_Path_Model(
        256, 256, block(), block(), num_layers=2, K=250, num_spks=2,
        linear_layer_after_inter_intra=False,
    )  # fmt: skip
    return SpeechBrain(mask_net, 256, 16)


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "PyTorch LSTM": lambda: Masks(both=False),
    "PyTorch BLSTM": lambda: Masks(both=True),
    "asteroid ConvTasNet": _asteroid_conv_tasnet,
    "speechbrain ConvTasNet": _speechbrain_conv_tasnet,
    "speechbrain SepFormer": _sepformer,
}


def main(name: str) -> None:
    """Serves jobs for the model `name`, one of `MODELS`."""
    start = time.perf_counter()
    model = MODELS[name]().eval()
    loaded = time.perf_counter() - start

    def seconds(length: float) -> float:
        samples = torch.from_numpy(children.babble(length))[None]
        start = time.perf_counter()
        with torch.inference_mode():
            voices = model(samples)
        took = time.perf_counter() - start
        assert voices.shape[:2] == (1, 2), voices.shape
        return took

    children.serve(
        {
            "seconds": seconds,
            "about": lambda: {
                "parameters": sum(p.numel() for p in model.parameters()),
                "torch": torch.__version__,
                "seconds to load": round(loaded, 2),
                "peak MB": children.peak_megabytes(),
            },
        }
    )


if __name__ == "__main__":
    main(sys.argv[1])
