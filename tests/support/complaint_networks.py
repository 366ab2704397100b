"""Small networks that other pruners break, each with what a cut of it has to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IMAGE = (torch.zeros(1, 3, 8, 8),)
TOKENS = (torch.zeros(1, 6, 8),)


class Net(nn.Module):
    """A forward given as a function, over modules and parameters given by name."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self._function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self._function(self, *inputs)


@dataclass(frozen=True)
class Complaint:
    """A network, what of it must get smaller, what must stay whole, and why.

    `cut` names tensors that must lose channels, `frozen` layers with words of the reason; `mode` is
    how it is cut, where that matters. `reads` lists (tensor, dim) of weights besides those of
    layers that read channels; `only` names the layers to cut, where cutting all would leave out the
    thing in question. `reference` says what is zeroed in the dense network to compare with:
    "readers" of removed channels, "all" that is removed (where channels meet without a weight
    between), or "" where no mask equals the cut.
    """

    make: Callable[[], nn.Module]
    cut: tuple[str, ...] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)
    example: tuple[Any, ...] = IMAGE
    mode: str | None = "module"
    flops: float = 0.5
    reference: str = "readers"
    reads: tuple[tuple[str, int], ...] = ()
    only: tuple[str, ...] = ()
    tolerance: float = 1e-9


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def head(net: Any, x: Tensor) -> Any:
    """Pool over positions and classify, with the layer `fc`."""
    return net.fc(x.relu().mean((2, 3)))


def fc(width: int) -> nn.Linear:
    return nn.Linear(width, 5)


# --- wiring of convolutions ----------------------------------------------------------------------


def padded_shortcut() -> nn.Module:
    def forward(net, x):
        x = net.norm(net.stem(x)).relu()
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return head(net, shortcut + net.second(net.first(x).relu()))

    return Net(
        forward, stem=conv(3, 16), norm=nn.BatchNorm2d(16), first=conv(16, 24, stride=2),
        second=conv(24, 24), fc=fc(24),
    )  # fmt: skip


def channel_shuffle(shuffle: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    def forward(net, x):
        x = shuffle(net.first(net.stem(x)))
        return head(net, net.last(x.relu()))

    return lambda: Net(
        forward, stem=conv(3, 16), first=conv(16, 16, groups=2), last=conv(16, 16, groups=2),
        fc=fc(16),
    )  # fmt: skip


def shuffled_by_hand(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, 2, channels // 2, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


def dense_concat() -> nn.Module:
    def forward(net, x):
        seen = [net.stem(x)]
        for layer in (net.first, net.second):
            seen.append(layer(torch.cat(seen, 1).relu()))
        return head(net, torch.cat(seen, 1))

    return Net(forward, stem=conv(3, 16), first=conv(16, 8), second=conv(24, 8), fc=fc(32))


def joined_to_itself() -> nn.Module:
    def forward(net, x):
        x = net.stem(x).relu()
        return head(net, net.last(torch.cat([x, x], 1)))

    return Net(forward, stem=conv(3, 16), last=conv(32, 16), fc=fc(16))


def split_and_unbind() -> nn.Module:
    def forward(net, x):
        first, second = net.stem(x).split([10, 6], 1)
        joined = torch.cat([second.sigmoid(), first.relu()], 1)
        pair = joined.view(x.shape[0], 2, -1, 8, 8).unbind(1)
        return head(net, net.last(pair[0] * pair[1]))

    return Net(forward, stem=conv(3, 16), last=conv(8, 16), fc=fc(16))


def chain(*layers: nn.Module) -> Callable[[], nn.Module]:
    """Return a maker of layers in a row between two 3x3 convolutions of 16 channels and a head."""
    return lambda: nn.Sequential(
        conv(3, 16), nn.ReLU(), *layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc(16)
    )


def one_output_channel() -> nn.Module:
    def forward(net, x):
        x = net.stem(x).relu()
        return head(net, net.body(x) * net.mask(x).sigmoid())

    return Net(forward, stem=conv(3, 16), mask=conv(16, 1), body=conv(16, 16), fc=fc(16))


def squeeze_excite() -> nn.Module:
    def forward(net, x):
        x = net.stem(x)
        scale = net.excite(net.squeeze(x.mean((2, 3), keepdim=True)).relu())
        return head(net, net.last(x * scale.sigmoid()))

    return Net(
        forward, stem=conv(3, 16), squeeze=conv(16, 8, 1), excite=conv(8, 16, 1),
        last=conv(16, 16), fc=fc(16),
    )  # fmt: skip


def excite_expanded() -> nn.Module:
    def forward(net, x):
        x = net.stem(x)
        scale = net.excite(x.mean((2, 3))).sigmoid().view(x.shape[0], 16, 1, 1).expand_as(x)
        spatial = net.spatial(x).sigmoid().expand(-1, 16, -1, -1)
        return head(net, net.last(x * scale * spatial))

    return Net(
        forward, stem=conv(3, 16), excite=nn.Linear(16, 16), spatial=conv(16, 1),
        last=conv(16, 16), fc=fc(16),
    )  # fmt: skip


def layer_scale() -> nn.Module:
    def forward(net, x):
        x = net.stem(x)
        return head(net, x + net.gamma * net.second(net.first(x).relu()))

    gamma = nn.Parameter(torch.ones(16, 1, 1))
    return Net(
        forward, stem=conv(3, 16), first=conv(16, 16), second=conv(16, 16), gamma=gamma, fc=fc(16)
    )


def broadcast_mask() -> nn.Module:
    def forward(net, x):
        mask = net.mask(x).sigmoid()  # [B, 1, H, W]
        return head(net, net.last(net.stem(x) * mask))

    return Net(forward, stem=conv(3, 16), mask=conv(3, 1), last=conv(16, 16), fc=fc(16))


def masked_fill() -> nn.Module:
    def forward(net, x):
        y = net.stem(x)
        y = y.masked_fill(x[:, :1] > 0, -0.5)
        return head(net, net.last(torch.where(x[:, 1:2] > 0, y, y.sigmoid())))

    return Net(forward, stem=conv(3, 16), last=conv(16, 16), fc=fc(16))


# --- channels that become positions, and back ----------------------------------------------------


def glu() -> nn.Module:
    return Net(
        lambda net, x: head(net, net.last(functional.glu(net.stem(x), 1))),
        stem=conv(3, 32), last=conv(16, 16), fc=fc(16),
    )  # fmt: skip


def swiglu() -> nn.Module:
    def forward(net, x):
        gate, value = net.both(x).chunk(2, -1)
        return net.fc(net.down(functional.silu(gate) * value).mean(1))

    return Net(forward, both=nn.Linear(8, 64), down=nn.Linear(32, 16), fc=fc(16))


def pixel_shuffle() -> nn.Module:
    def forward(net, x):
        x = functional.pixel_shuffle(net.stem(x).relu(), 2)
        x = functional.pixel_unshuffle(net.middle(x).relu(), 2)
        return head(net, net.last(x))

    return Net(forward, stem=conv(3, 64), middle=conv(16, 8), last=conv(32, 16), fc=fc(16))


def windows_of_a_kernel() -> nn.Module:
    def forward(net, x):
        columns = functional.unfold(net.stem(x).relu(), 2)
        mixed = net.mix(columns.transpose(1, 2)).transpose(1, 2)
        return head(net, net.last(functional.fold(mixed.relu(), (8, 8), 2)))

    return Net(forward, stem=conv(3, 16), mix=nn.Linear(64, 32), last=conv(8, 16), fc=fc(16))


def unet() -> nn.Module:
    def forward(net, x):
        top = net.top(x).relu()
        deep = net.deep(functional.max_pool2d(top, 2)).relu()
        up = functional.interpolate(deep, scale_factor=2.0, mode="bilinear")
        x = net.merge(torch.cat([top, up], 1)).relu()
        return net.out(torch.cat([x, net.up(deep)], 1))

    return Net(
        forward, top=conv(3, 16), deep=conv(16, 32), merge=conv(48, 16),
        up=nn.ConvTranspose2d(32, 16, 2, 2), out=conv(32, 2),
    )  # fmt: skip


def window_partition() -> nn.Module:
    def forward(net, x):
        x = net.embed(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = torch.roll(x, (-2, -2), (1, 2))
        x = x.view(batch, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = net.second(functional.gelu(net.first(x.reshape(-1, 16, channels))))
        x = x.view(batch, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        x = torch.roll(x.reshape(batch, height, width, channels), (2, 2), (1, 2))
        return net.fc(x.flip(1).mean((1, 2)))

    return Net(
        forward, embed=conv(3, 16), first=nn.Linear(16, 48), second=nn.Linear(48, 16), fc=fc(16)
    )


def spatial_transformer() -> nn.Module:
    def forward(net, x):
        y = net.stem(x).relu()
        matrix = net.place(net.look(x).relu().mean((2, 3))).view(-1, 2, 3)
        grid = functional.affine_grid(matrix, y.shape, align_corners=False)
        return head(net, net.last(functional.grid_sample(y, grid, align_corners=False)))

    return Net(
        forward, stem=conv(3, 16), look=conv(3, 8), place=nn.Linear(8, 6), last=conv(16, 16),
        fc=fc(16),
    )  # fmt: skip


def rolled_channels() -> nn.Module:
    def forward(net, x):
        x = net.stem(x).relu()
        return head(net, net.last(torch.cat([x.roll(3, 1), x.flip(1), x[:, net.order]], 1)))

    net = Net(forward, stem=conv(3, 16), last=conv(48, 16), fc=fc(16))
    net.register_buffer("order", torch.randperm(16, generator=torch.Generator().manual_seed(0)))
    return net


def repeated_channels() -> nn.Module:
    def forward(net, x):
        x = net.stem(x).relu()
        parts = x.repeat(1, 2, 1, 1), x.repeat_interleave(2, 1), x[:, [3, 1, 3, 8]]
        return head(net, net.last(torch.cat(parts, 1)))

    return Net(forward, stem=conv(3, 16), last=conv(68, 16), fc=fc(16))


def grey_to_colour() -> nn.Module:
    def forward(net, x):
        grey = net.grey(x)
        parts = grey.repeat(1, 16, 1, 1), grey.expand(-1, 16, -1, -1), grey.repeat_interleave(16, 1)
        return head(net, net.last(net.stem(x) * parts[0] * parts[1] * parts[2]))

    return Net(forward, stem=conv(3, 16), grey=conv(3, 1), last=conv(16, 16), fc=fc(16))


# --- norms ---------------------------------------------------------------------------------------


class FrozenBatchNorm(nn.Module):
    """A batch norm whose parameters are buffers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


class HandWrittenNorm(nn.Module):
    """A layer norm or RMS norm over channels, as many repositories write it."""

    def __init__(self, width: int, *, centred: bool) -> None:
        super().__init__()
        self.weight, self.centred = nn.Parameter(torch.ones(width, 1, 1)), centred

    def forward(self, x: Tensor) -> Tensor:
        if self.centred:
            x = x - x.mean(1, keepdim=True)
        return self.weight * x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)


class Blur(nn.Module):
    """A fixed filter for every channel, kept as a buffer of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(width, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel, stride=2, padding=1, groups=x.shape[1])


class LastDimension(nn.Module):
    """A norm over the last dimension, applied to channels."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


# --- attributes, weights and modules in unusual places -------------------------------------------


def sizes_in_attributes() -> nn.Module:
    def forward(net, x):
        left, right = net.stem(x).split(net.sizes, 1)
        x = torch.cat([net.left(left), right], 1)
        return net.fc(net.last(x).relu().view(net.shape).mean(2))

    return Net(
        forward, stem=conv(3, 16), left=conv(4, 4), last=conv(16, 16), fc=fc(16), sizes=[4, 12],
        shape=(-1, 16, 64),
    )  # fmt: skip


def frozen_parameters() -> nn.Module:
    model = chain(conv(16, 16), nn.BatchNorm2d(16))()
    return model.requires_grad_(requires_grad=False)


def without_gradients() -> nn.Module:
    def forward(net, x):
        with torch.no_grad():
            x = net.stem(x).relu()
        return head(net, net.last(x))

    return Net(forward, stem=conv(3, 16), last=conv(16, 16), fc=fc(16))


def functional_weights() -> nn.Module:
    def forward(net, x):
        x = functional.conv2d(x, net.first, padding=1).relu()
        x = functional.conv2d(x, net.second, net.bias, padding=1)
        return functional.linear(x.relu().mean((2, 3)), net.third)

    weights = {"first": (16, 3, 3, 3), "second": (16, 16, 3, 3), "bias": (16,), "third": (5, 16)}
    return Net(forward, **{name: nn.Parameter(torch.ones(size)) for name, size in weights.items()})


def weights_of_the_input() -> nn.Module:
    """A convolution of its own for every input: as many groups as inputs."""

    def forward(net, x):
        x = net.stem(x).relu()
        batch, channels, height, width = x.shape
        share = net.share(x.mean((2, 3))).softmax(-1)
        weight = (share @ net.weight.view(3, -1)).view(batch * 24, channels, 3, 3)
        x = functional.conv2d(x.reshape(1, -1, height, width), weight, padding=1, groups=batch)
        return head(net, x.view(batch, 24, height, width))

    weight = nn.Parameter(torch.randn(3, 24, 16, 3, 3))
    return Net(forward, stem=conv(3, 16), share=nn.Linear(16, 3), weight=weight, fc=fc(24))


def modulated_convolution() -> nn.Module:
    """A convolution whose weight every input scales, then norms."""

    def forward(net, x, style):
        x = net.stem(x)
        batch, channels, height, width = x.shape
        weight = net.weight * net.style(style)[:, None, :, None, None]
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        weight = weight.view(batch * 24, channels, 3, 3)
        x = functional.conv2d(x.reshape(1, -1, height, width), weight, padding=1, groups=batch)
        return head(net, x.view(batch, -1, height, width))

    weight = nn.Parameter(torch.randn(1, 24, 16, 3, 3))
    return Net(forward, stem=conv(3, 16), style=nn.Linear(4, 16), weight=weight, fc=fc(24))


def table_written_in_steps() -> nn.Module:
    """Sines and cosines of positions, made in the forward as most tutorials do."""

    def forward(net, x):
        x = net.first(x)
        angles = torch.arange(6).unsqueeze(1) * torch.exp(-0.3 * torch.arange(0, 16, 2))
        table = torch.zeros(6, 16, dtype=x.dtype)
        table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
        x = x + table
        return net.last(x + net.down(net.up(x).relu()))

    return Net(
        forward, first=nn.Linear(8, 16), up=nn.Linear(16, 64), down=nn.Linear(64, 16), last=fc(16)
    )


def without_autocast() -> nn.Module:
    def forward(net, x):
        with torch.autocast(x.device.type, enabled=False):
            x = net.stem(x).relu()
        return head(net, net.last(x))

    return Net(forward, stem=conv(3, 16), last=conv(16, 16), fc=fc(16))


def used_twice() -> nn.Module:
    def forward(net, x):
        x = net.shared(net.shared(net.stem(x)).relu()).relu()
        return head(net, net.last(x))

    return Net(forward, stem=conv(3, 16), shared=conv(16, 16), last=conv(16, 16), fc=fc(16))


def tied_weights() -> nn.Module:
    def forward(net, x):
        return head(net, net.last(net.second(net.first(net.stem(x)).relu())))

    net = Net(
        forward, stem=conv(3, 16), first=conv(16, 16), second=conv(16, 16), last=conv(16, 16),
        fc=fc(16),
    )  # fmt: skip
    net.second.weight = net.first.weight
    return net


def hard_coded_view() -> nn.Module:
    def forward(net, x):
        x = functional.max_pool2d(net.last(net.stem(x).relu()).relu(), 2)
        return net.fc(net.hidden(x.view(-1, 512)).relu())

    return Net(forward, stem=conv(3, 16), last=conv(16, 32), hidden=nn.Linear(512, 16), fc=fc(16))


def flattened() -> nn.Module:
    def forward(net, x):
        x = functional.max_pool2d(net.last(net.stem(x).relu()).relu(), 2)
        return net.fc(net.hidden(x.flatten(1)).relu())

    return Net(forward, stem=conv(3, 16), last=conv(16, 32), hidden=nn.Linear(512, 16), fc=fc(16))


def buffer_with_channels() -> nn.Module:
    def forward(net, x):
        return head(net, net.last(net.stem(x) * net.scale + net.plain))

    net = Net(forward, stem=conv(3, 16), last=conv(16, 16), fc=fc(16))
    net.register_buffer("scale", torch.ones(16, 1, 1))
    net.register_buffer("plain", torch.ones(1, 16, 8, 8))
    return net


def plain_tensor_with_channels() -> nn.Module:
    table = torch.linspace(-1, 1, 16)[:, None, None]

    def forward(net, x):
        positions = torch.arange(16, dtype=x.dtype).div(16).sin()[None, :, None, None]
        return head(net, net.last(net.stem(x) * table + positions))

    return Net(forward, stem=conv(3, 16), last=conv(16, 16), fc=fc(16))


def two_inputs() -> nn.Module:
    def forward(net, image, vector):
        x = net.stem(image) + net.lift(vector)[:, :, None, None]
        return head(net, net.last(x))

    return Net(forward, stem=conv(3, 16), lift=nn.Linear(4, 16), last=conv(16, 16), fc=fc(16))


def two_outputs() -> nn.Module:
    def forward(net, x):
        x = net.stem(x).relu()
        return head(net, net.last(x)), net.other(x.mean((2, 3)))

    return Net(forward, stem=conv(3, 16), last=conv(16, 16), other=fc(16), fc=fc(16))


def named_outputs() -> nn.Module:
    def forward(net, x):
        first, (second,) = two(net, x)
        return {"logits": first, "more": {"extra": second}}

    def two(net, x):
        x = net.stem(x).relu()
        return head(net, net.last(x)), (net.other(x.mean((2, 3))),)

    return Net(forward, stem=conv(3, 16), last=conv(16, 16), other=fc(16), fc=fc(16))


def control_flow() -> nn.Module:
    def forward(net, x):
        layers = {"wide": net.wide, "narrow": net.narrow}
        for step, name in enumerate(net.order):
            if step % 2 and x.shape[1] > 3:
                x = layers[name](x).relu()
            elif name in layers and not net.training:
                x = layers[name](x) if len(net.order) > 2 else x
            else:
                raise AssertionError(name)
        while x.shape[-1] > 2:
            x = functional.avg_pool2d(x, 2)
        return head(net, x)

    order = ["narrow", "wide", "wide"]
    return Net(forward, narrow=conv(3, 16), wide=conv(16, 16), fc=fc(16), order=order)


def convolution_1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 16, 3, padding=1, groups=4), nn.ReLU(), nn.ConvTranspose1d(16, 8, 2, 2),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), fc(8),
    )  # fmt: skip


def convolution_3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool3d(1), nn.Flatten(), fc(16),
    )  # fmt: skip


def pools_of_every_kind() -> nn.Module:
    def forward(net, x):
        x = net.stem(x)
        pooled, indices = functional.max_pool2d(x, 2, return_indices=True)
        x = functional.max_unpool2d(pooled, indices, 2)
        x = functional.lp_pool2d(x.sigmoid(), 2, 2) + functional.adaptive_max_pool2d(x, 4)
        return head(net, net.last(functional.local_response_norm(net.middle(x), 2)))

    return Net(forward, stem=conv(3, 16), middle=conv(16, 8), last=conv(8, 16), fc=fc(16))


def spectral() -> nn.Module:
    def forward(net, x):
        x = torch.fft.rfft2(net.stem(x), norm="ortho") * torch.view_as_complex(net.weight)
        return head(net, net.last(torch.fft.irfft2(x, s=(8, 8), norm="ortho")))

    weight = nn.Parameter(torch.ones(16, 8, 5, 2))
    return Net(forward, stem=conv(3, 16), weight=weight, last=conv(16, 16), fc=fc(16))


def written_in_place() -> nn.Module:
    def forward(net, x):
        x = net.stem(x)
        shifted = torch.zeros_like(x)
        shifted[:, :4, 1:] = x[:, :4, :-1]
        shifted[:, 4:] = x[:, 4:]
        return head(net, net.last(shifted).view(-1, 16, 8, 8))

    return Net(forward, stem=conv(3, 16), last=conv(16, 16), fc=fc(16))


# --- tokens --------------------------------------------------------------------------------------


def class_token() -> nn.Module:
    def forward(net, x):
        token = net.token.expand(x.shape[0], -1, -1)
        x = torch.cat([token, net.embed(x)], 1) + net.position
        x = x + net.down(functional.gelu(net.up(x)))
        return net.fc(x[:, 0] + x[:, 1:].mean(1))

    return Net(
        forward, token=nn.Parameter(torch.ones(1, 1, 16)), embed=nn.Linear(8, 16),
        position=nn.Parameter(torch.ones(1, 7, 16)), up=nn.Linear(16, 32), down=nn.Linear(32, 16),
        fc=fc(16),
    )  # fmt: skip


def word_embedding() -> nn.Module:
    def forward(net, words):
        x = net.table(words) + net.place(torch.arange(words.shape[1]))
        return net.fc(net.down(net.up(x).relu()).mean(1))

    return Net(
        forward, table=nn.Embedding(20, 16), place=nn.Embedding(6, 16), up=nn.Linear(16, 32),
        down=nn.Linear(32, 16), fc=fc(16),
    )  # fmt: skip


def recurrent_head() -> nn.Module:
    def forward(net, x):
        x = net.last(net.stem(x).relu()).relu().flatten(2).transpose(1, 2)
        return net.fc(net.lstm(x)[0][:, -1])

    return Net(
        forward, stem=conv(3, 16), last=conv(16, 8), lstm=nn.LSTM(8, 8, batch_first=True), fc=fc(8)
    )


# --- attention -----------------------------------------------------------------------------------

HEADS = 4
WIDTH = 16


def heads_of(x: Tensor, count: int = HEADS) -> Tensor:
    """Read the last dimension as heads: [B, N, D] to [B, heads, N, D / heads]."""
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """Undo `heads_of`."""
    return x.transpose(1, 2).flatten(2)


def attention(mix: Callable[..., Tensor], *, keys: int = WIDTH, **parts: Any) -> nn.Module:
    """Return a network of one attention; `mix` gets the network, queries, keys and values."""

    def forward(net, x):
        x = net.embed(x)
        x = x + net.out(mix(net, net.query(x), net.key(x), net.value(x)))
        return net.fc(x.mean(1))

    return Net(
        forward, embed=nn.Linear(8, WIDTH), query=nn.Linear(WIDTH, WIDTH),
        key=nn.Linear(WIDTH, keys), value=nn.Linear(WIDTH, keys), out=nn.Linear(WIDTH, WIDTH),
        fc=fc(WIDTH), **parts,
    )  # fmt: skip


def with_function(net: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    split = (heads_of(part) for part in (query, key, value))
    return joined(functional.scaled_dot_product_attention(*split))


def with_a_view(net: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Join heads by a view: whether `contiguous` copies is up to the kernel."""
    heads = [heads_of(x) for x in (query, key, value)]
    mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
    return mixed.transpose(1, 2).contiguous().view(query.shape[0], -1, WIDTH)


def with_einsum(net: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (heads_of(part) for part in (query, key, value))
    weights = torch.einsum("bhid,bhjd->bhij", query, key) * query.shape[-1] ** -0.5
    return joined(torch.einsum("bhij,bhjd->bhid", weights.softmax(-1), value))


def with_grouped_queries(net: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    key, value = (heads_of(part, 2).repeat_interleave(2, 1) for part in (key, value))
    return joined(functional.scaled_dot_product_attention(heads_of(query), key, value))


def with_position_table(net: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    query, key, value = (heads_of(part) for part in (query, key, value))
    bias = net.table[net.index.view(-1)].view(6, 6, -1).permute(2, 0, 1)
    weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5 + bias).softmax(-1)
    return joined(weights @ value)


def position_table() -> nn.Module:
    net = attention(with_position_table, table=nn.Parameter(torch.ones(11, HEADS)))
    places = torch.arange(6)
    net.register_buffer("index", places[:, None] - places[None] + 5)
    return net


def fused_attention() -> nn.Module:
    def forward(net, x):
        x = net.embed(x)
        x = x + net.attention(x, x, x, need_weights=False)[0]
        return net.fc(net.down(net.up(x).relu()).mean(1))

    return Net(
        forward, embed=nn.Linear(8, WIDTH), up=nn.Linear(WIDTH, 32), down=nn.Linear(32, WIDTH),
        attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), fc=fc(WIDTH),
    )  # fmt: skip


def joint_projection() -> nn.Module:
    def forward(net, x):
        x = net.embed(x)
        parts = net.qkv(x).reshape(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + net.out(joined(functional.scaled_dot_product_attention(*parts)))
        return net.fc(x.mean(1))

    return Net(
        forward, embed=nn.Linear(8, WIDTH), qkv=nn.Linear(WIDTH, 3 * WIDTH),
        out=nn.Linear(WIDTH, WIDTH), fc=fc(WIDTH),
    )  # fmt: skip


# --- weights that are computed -------------------------------------------------------------------


class Standardised(nn.Conv2d):
    """A convolution whose weight is standardised over its inputs in every forward."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return functional.conv2d(x, weight, self.bias, padding=1)


def parametrised(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return chain(conv(16, 16), nn.ReLU(), wrap(conv(16, 16)))


COMPLAINTS: dict[str, Complaint] = {
    "padded shortcut": Complaint(
        padded_shortcut, cut=("stem.weight", "first.weight", "second.weight"), mode="graph"
    ),
    "channel shuffle by hand": Complaint(
        channel_shuffle(shuffled_by_hand), cut=("stem.weight", "first.weight", "last.weight")
    ),
    "channel shuffle": Complaint(
        channel_shuffle(lambda x: functional.channel_shuffle(x, 2)),
        cut=("stem.weight", "first.weight", "last.weight"),
    ),
    "dense concat": Complaint(
        dense_concat, cut=("stem.weight", "first.weight", "second.weight")
    ),
    "cat([x, x])": Complaint(joined_to_itself, cut=("stem.weight", "last.weight")),
    "split and unbind": Complaint(split_and_unbind, cut=("stem.weight",), mode="graph"),
    "grouped convolution, unequal in and out": Complaint(
        chain(conv(16, 24, groups=8), nn.ReLU(), conv(24, 16, groups=4)),
        cut=("0.weight", "2.weight"),
    ),
    "depthwise with multiplier": Complaint(
        chain(conv(16, 32, groups=16), nn.ReLU(), conv(32, 16)), cut=("0.weight", "2.weight")
    ),
    "one output channel": Complaint(one_output_channel, cut=("stem.weight", "body.weight")),
    "squeeze and excite": Complaint(
        squeeze_excite, cut=("stem.weight", "squeeze.weight", "excite.weight", "last.weight")
    ),
    "excite expanded": Complaint(
        excite_expanded, cut=("stem.weight", "excite.weight", "last.weight"), mode="graph"
    ),
    "layer scale": Complaint(layer_scale, cut=("stem.weight", "gamma", "first.weight")),
    "broadcast mask": Complaint(broadcast_mask, cut=("stem.weight", "last.weight")),
    "masked fill and where": Complaint(masked_fill, cut=("stem.weight", "last.weight")),
    "GLU": Complaint(glu, cut=("stem.weight", "last.weight")),
    "SwiGLU": Complaint(swiglu, cut=("both.weight", "down.weight"), example=TOKENS),
    "pixel shuffle and unshuffle": Complaint(
        pixel_shuffle, cut=("stem.weight", "middle.weight", "last.weight")
    ),
    "unfold and fold": Complaint(windows_of_a_kernel, cut=("stem.weight", "mix.weight")),
    "transposed convolution": Complaint(
        chain(nn.ConvTranspose2d(16, 16, 2, 2)), cut=("0.weight", "2.weight")
    ),
    "grouped transposed convolution": Complaint(
        chain(nn.ConvTranspose2d(16, 16, 2, 2, groups=4)), cut=("0.weight", "2.weight")
    ),
    "U-Net": Complaint(unet, cut=("top.weight", "deep.weight", "merge.weight", "up.weight")),
    "window partition and roll": Complaint(
        window_partition, cut=("embed.weight", "first.weight", "second.weight"), flops=0.4
    ),
    "spatial transformer": Complaint(
        spatial_transformer, cut=("stem.weight", "last.weight"), mode=None,
    ),
    "rolled, flipped and reordered channels": Complaint(
        rolled_channels, cut=("stem.weight", "last.weight"), mode="graph"
    ),
    "repeated and picked channels": Complaint(
        repeated_channels, cut=("stem.weight", "last.weight"), mode="graph"
    ),
    "one channel copied to many": Complaint(
        grey_to_colour, cut=("stem.weight", "last.weight"), mode="graph"
    ),
    "group norm": Complaint(
        chain(conv(16, 16), nn.GroupNorm(8, 16)), cut=("0.weight", "2.weight", "3.weight")
    ),
    "layer norm": Complaint(
        chain(conv(16, 16), LastDimension(nn.LayerNorm(16))),
        cut=("2.weight", "3.norm.weight"), only=("2",), flops=0.8, reference="",
    ),
    "RMS norm": Complaint(
        chain(conv(16, 16), LastDimension(nn.RMSNorm(16))),
        cut=("2.weight", "3.norm.weight"), only=("2",), flops=0.8, reference="",
    ),
    "layer norm by hand": Complaint(
        chain(conv(16, 16), HandWrittenNorm(16, centred=True)),
        cut=("2.weight", "3.weight"), only=("2",), flops=0.8, reference="",
    ),
    "RMS norm by hand": Complaint(
        chain(conv(16, 16), HandWrittenNorm(16, centred=False)),
        cut=("2.weight", "3.weight"), only=("2",), flops=0.8, reference="",
    ),
    "instance norm": Complaint(
        chain(conv(16, 16), nn.InstanceNorm2d(16, affine=True)),
        cut=("0.weight", "2.weight", "3.weight"),
    ),
    "frozen batch norm": Complaint(
        chain(conv(16, 16), FrozenBatchNorm(16)),
        cut=("0.weight", "2.weight", "3.weight", "3.running_mean"),
    ),
    "filter of a blur pool": Complaint(
        chain(conv(16, 16), Blur(16)), cut=("0.weight", "2.weight", "3.kernel")
    ),
    "sizes kept in attributes": Complaint(
        sizes_in_attributes, cut=("stem.weight", "left.weight", "last.weight")
    ),
    "frozen parameters": Complaint(frozen_parameters, cut=("0.weight", "2.weight", "3.weight")),
    "no gradients inside": Complaint(without_gradients, cut=("stem.weight", "last.weight")),
    "weights of the input": Complaint(
        weights_of_the_input, cut=("weight",), mode="graph",
        frozen={"share": "softmax lets these channels compete"},
    ),
    "modulated convolution": Complaint(
        modulated_convolution, cut=("weight",), mode="graph",
        example=(*IMAGE, torch.zeros(1, 4)), frozen={"stem": "sum runs over these channels"},
    ),
    "table written in steps": Complaint(
        table_written_in_steps, cut=("up.weight", "down.weight"), example=TOKENS,
        frozen={"down": "is written in steps"},
    ),
    "autocast switched off inside": Complaint(
        without_autocast, cut=("stem.weight", "last.weight")
    ),
    "functional weights": Complaint(
        functional_weights, cut=("first", "second", "bias", "third"),
        reads=(("second", 1), ("third", 1)),
    ),
    "a module used twice": Complaint(
        used_twice, cut=("stem.weight", "shared.weight", "last.weight")
    ),
    "tied weights": Complaint(tied_weights, cut=("stem.weight", "first.weight", "last.weight")),
    "view(-1, 512)": Complaint(
        hard_coded_view, cut=("stem.weight", "last.weight", "hidden.weight"), mode="graph"
    ),
    "flatten": Complaint(flattened, cut=("stem.weight", "last.weight", "hidden.weight")),
    "buffers with channels": Complaint(
        buffer_with_channels, cut=("stem.weight", "scale", "plain", "last.weight")
    ),
    "plain tensors with channels": Complaint(
        plain_tensor_with_channels, cut=("stem.weight", "last.weight"), mode="graph",
        tolerance=1e-6,  # its table of positions is in float32, whatever the input is
    ),
    "two inputs": Complaint(
        two_inputs, cut=("stem.weight", "lift.weight", "last.weight"),
        example=(*IMAGE, torch.zeros(1, 4)),
    ),
    "two outputs": Complaint(two_outputs, cut=("stem.weight", "other.weight", "last.weight")),
    "named outputs": Complaint(named_outputs, cut=("stem.weight", "other.weight", "last.weight")),
    "control flow": Complaint(control_flow, cut=("narrow.weight", "wide.weight")),
    "1-d convolutions": Complaint(
        convolution_1d, cut=("0.weight", "4.weight", "6.weight"), example=(torch.zeros(1, 2, 16),)
    ),
    "3-d convolutions": Complaint(
        convolution_3d, cut=("0.weight", "4.weight"), example=(torch.zeros(1, 2, 4, 4, 4),)
    ),
    "pools of every kind": Complaint(
        pools_of_every_kind, cut=("stem.weight", "last.weight"), flops=0.6,
        frozen={"middle": "avg_pool3d runs over these channels"},
    ),
    "transform into frequencies": Complaint(spectral, cut=("stem.weight", "weight", "last.weight")),
    "written in place": Complaint(
        written_in_place, cut=("stem.weight", "last.weight"), mode="graph"
    ),
    "class token and positions": Complaint(
        class_token, cut=("token", "position", "embed.weight", "up.weight"), example=TOKENS,
        flops=0.4,
    ),
    "word embedding": Complaint(
        word_embedding, cut=("table.weight", "place.weight", "up.weight"), flops=0.4,
        example=(torch.arange(6).view(1, 6),),
    ),
    "recurrent head": Complaint(
        recurrent_head, cut=("stem.weight",), flops=0.9,
        frozen={"last": "a recurrent layer stays whole"},
    ),
    "scaled_dot_product_attention": Complaint(
        lambda: attention(with_function), cut=("query.weight", "key.weight"), example=TOKENS,
        mode=None, reference="all", only=("query*", "value*"), flops=0.7,
    ),
    "attention joined by a view": Complaint(
        lambda: attention(with_a_view), cut=("query.weight", "key.weight"), example=TOKENS,
        mode=None, reference="all", only=("query*", "value*"), flops=0.7,
    ),
    "attention by einsum": Complaint(
        lambda: attention(with_einsum), cut=("query.weight", "key.weight"), example=TOKENS,
        mode=None, reference="all", only=("query*", "value*"), flops=0.7,
    ),
    "grouped queries": Complaint(
        lambda: attention(with_grouped_queries, keys=8), cut=("query.weight",), example=TOKENS,
        mode=None, reference="all", only=("query*", "value*"), flops=0.8,
    ),
    "table of relative positions": Complaint(
        position_table, cut=("query.weight", "key.weight"), example=TOKENS,
        mode=None, reference="all", only=("query*", "value*"), flops=0.7,
    ),
    "queries, keys and values in one layer": Complaint(
        joint_projection, cut=("qkv.weight", "out.weight"), example=TOKENS,
        mode=None, reference="all", only=("qkv*",), flops=0.7,
    ),
    "fused attention": Complaint(
        fused_attention, cut=("up.weight", "down.weight", "attention.in_proj_weight"),
        example=TOKENS, mode=None, reference="all",
    ),
    "weight norm": Complaint(
        parametrised(nn.utils.parametrizations.weight_norm), cut=("0.weight", "2.weight"),
        mode=None, reference="",
    ),
    "spectral norm": Complaint(
        parametrised(nn.utils.parametrizations.spectral_norm), cut=("0.weight", "2.weight"),
        mode=None, reference="",
    ),
    "standardised weights": Complaint(
        chain(Standardised(16, 16, 3), nn.ReLU(), Standardised(16, 16, 3)), cut=("0.weight",),
        mode=None, reference="",
    ),
}  # fmt: skip
"""The complaint list: what users of other pruners report as broken."""
