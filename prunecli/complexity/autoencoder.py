"""The convolutional autoencoder whose codes the complexity paper measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

SIDE = 64
"""Images are resized to this, as in the reference's experiments."""

BATCH = 128

CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Means of blue, green and red that are taken off colour images, which are in that order."""


class Autoencoder(nn.Module):
    """Four steps down to a code of 8 channels at 4 x 4 and four up, linear but for the pools.

    Encoder: 4 x (3 x 3 convolution, batch norm, 2 x 2 max pool) with 64, 128, 256, 256 channels and
    a 1 x 1 convolution. Decoder: transposed convolutions with 128, 256, 512, 512 channels, each
    with batch norm, and a 1 x 1 convolution. From the experiments of Branchaud-Charron et al.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*_down(channels, (64, 128, 256, 256)), nn.Conv2d(256, 8, 1))
        self.decoder = nn.Sequential(*_up(8, (128, 256, 512, 512)), nn.Conv2d(512, channels, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return images [n, C, 64, 64] as the codes give them back, in training mode."""
        return decoded(self.decoder, self.encoder(images))


def _down(channels: int, widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in zip((channels, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.MaxPool2d(2)]
    return layers


def _up(channels: int, widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in zip((channels, *widths), widths, strict=False):
        layers += [nn.ConvTranspose2d(before, after, 2, stride=2), nn.BatchNorm2d(after)]
    return layers


def decoded(decoder: nn.Sequential, codes: Tensor) -> Tensor:
    """Return what `decoder` makes of codes [n, 8, h, w] in training mode, without running on all.

    It has no nonlinearity and its kernels do not overlap, so every place of a code becomes its own
    patch of the image by one linear map, and all that batch norm needs to know of a batch is the
    mean and the covariance of its codes. Pushing the axes of a code through the layers, instead of
    2048 places, is the same function and leaves the encoder as the only cost.
    """
    count, width, high, wide = codes.shape
    places = codes.permute(0, 2, 3, 1).reshape(-1, width)
    mean = places.mean(0)
    centred = places - mean
    covariance = centred.T @ centred / len(centred)
    axes = torch.eye(width, dtype=codes.dtype, device=codes.device).reshape(width, width, 1, 1)
    offset = mean.reshape(1, width, 1, 1)
    for layer in decoder:
        if isinstance(layer, nn.BatchNorm2d):
            axes, offset = _normalised(layer, axes, offset, covariance)
        else:
            offset = layer(offset)
            axes = layer(axes) - layer(torch.zeros_like(axes[:1]))
    patches = centred @ axes.flatten(1) + offset.flatten()
    channels, *side = axes.shape[1:]
    tiles = patches.view(count, high, wide, channels, *side).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(count, channels, high * side[0], wide * side[1])


def _normalised(
    layer: nn.BatchNorm2d, axes: Tensor, offset: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the linear map after batch norm by the statistics of the batch."""
    mean = offset.mean((0, 2, 3), keepdim=True)
    within = torch.einsum("icp,ij,jcp->cp", axes.flatten(2), covariance, axes.flatten(2))
    variance = within.mean(1).view_as(mean) + (offset - mean).square().mean((2, 3), keepdim=True)
    scale = layer.weight.view_as(mean) * torch.rsqrt(variance + layer.eps)
    return axes * scale, (offset - mean) * scale + layer.bias.view_as(mean)


def codes(
    images: Tensor,
    *,
    seed: int = 0,
    epochs: int,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Train an autoencoder on uint8 images [n, C, H, W] by Adam; return their codes [n, 128]."""
    *_, network = trained(images, seed=seed, epochs=epochs, device=device, progress=progress)
    return encoded(network, images)


def trained(
    images: Tensor,
    *,
    seed: int = 0,
    epochs: int,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Iterator[Autoencoder]:
    """Yield an autoencoder of uint8 images [n, C, H, W] after every epoch of training it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder(images.shape[1])
    network = network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())
    steps = epochs * -(-len(images) // BATCH)
    done = 0
    for _ in range(epochs):
        network.train()
        for some in torch.split(torch.randperm(len(images), generator=generator), BATCH):
            batch = prepared(images[some]).to(device, memory_format=torch.channels_last)
            loss = functional.mse_loss(network(batch), batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            progress(Step("autoencoder", done, steps, {"loss": loss.item()}))
        yield network


def encoded(network: Autoencoder, images: Tensor) -> NDArray[np.float32]:
    """Return the codes [n, 128] of uint8 images [n, C, H, W]."""
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        found = [
            network.encoder(prepared(some).to(device)).cpu() for some in torch.split(images, BATCH)
        ]
    return np.asarray(torch.cat(found).flatten(1).numpy(), np.float32)


def prepared(images: Tensor) -> Tensor:
    """Return uint8 images as the network reads them: resized, colours less their mean, greys / 255.

    Colour is blue, green, red with means subtracted; the reference feeds them so.
    """
    resized = functional.interpolate(
        images.float(), size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )
    if images.shape[1] != len(CAFFE_MEAN):
        return resized / 255
    return resized.flip(1) - torch.tensor(CAFFE_MEAN).view(1, -1, 1, 1)
