"""Random changes to training images: to each picture, to whole batches, and between images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from prunecli.errors import InputError
from prunecli.options.names import plus
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import DataSource


@dataclass(frozen=True)
class Stage:
    """One change, and what it is called in torchvision's words.

    `picture` changes one uint8 image [C, h, w] of any size by torch's own generator; with `whole`
    it takes the picture as it is in its file and gives it the size of the input. `batch` changes
    uint8 images [n, C, H, W] by a generator on the CPU. `mixed` mixes images of a batch, and their
    labels [n], which become shares [n, classes].
    """

    text: str
    picture: Callable[[Tensor], Tensor] | None = None
    batch: Callable[[Tensor, torch.Generator], Tensor] | None = None
    mixed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    whole: bool = False


@dataclass(frozen=True)
class Setting:
    """What images are augmented for: the input of a network, and the number of classes."""

    input: InputSpec
    classes: int


MakeStage: TypeAlias = Callable[[Setting], Stage | None]

AUGMENTATIONS: Registry[MakeStage] = Registry("augmentation")

WRITING = frozenset({"digits", "mnist-idx"})
"""Formats whose images change their meaning when they are mirrored."""


@dataclass(frozen=True)
class Augmentation:
    """Stages in the order in which they act: on pictures, on batches, between images."""

    stages: tuple[Stage, ...] = ()

    @property
    def text(self) -> str:
        """What is done, in torchvision's words."""
        return ", ".join(stage.text for stage in self.stages) or "none"

    @property
    def whole(self) -> bool:
        """Whether pictures are needed as they are in their files, not in the size of the input."""
        return any(stage.whole for stage in self.stages)

    @property
    def changes_pictures(self) -> bool:
        """Whether each picture is changed by itself, where it is decoded."""
        return any(stage.picture for stage in self.stages)

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return any(stage.mixed for stage in self.stages)

    def picture(self, image: Tensor) -> Tensor:
        """Return one uint8 image changed, by torch's own generator."""
        for stage in self.stages:
            image = image if stage.picture is None else stage.picture(image)
        return image

    def batch(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return uint8 images [n, C, H, W] changed."""
        for stage in self.stages:
            images = images if stage.batch is None else stage.batch(images, generator)
        return images

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return uint8 images mixed with one another, and their labels, by torch's generator."""
        for stage in self.stages:
            if stage.mixed is not None:
                images, labels = stage.mixed(images, labels)
        return images, labels


def augmentation_for(name: str, source: DataSource, input_spec: InputSpec) -> Augmentation:
    """Return an augmentation by its names, with a plus sign between them.

    `auto` crops and mirrors colour photographs, and changes nothing else. Raises `InputError` for
    names that there are not, or that images of this kind cannot have.
    """
    photographs = input_spec.channels == 3 and source.format not in WRITING
    usual = "crop-flip" if photographs else "none"
    names = [usual if each == "auto" else each for _, each in plus(name)]
    return make_augmentation(names, Setting(input_spec, len(source.classes)))


def make_augmentation(names: Iterable[str], setting: Setting) -> Augmentation:
    """Return the augmentation that has the stages of these names."""
    made = [AUGMENTATIONS.get(name)(setting) for name in names]
    stages = [stage for stage in made if stage is not None]
    return Augmentation(
        (
            *(stage for stage in stages if stage.whole),
            *(stage for stage in stages if stage.picture and not stage.whole),
            *(stage for stage in stages if stage.batch),
            *(stage for stage in stages if stage.mixed),
        )
    )


GEOMETRIC = ("auto", "none", "flip", "crop", "crop-flip")
"""Those that move pixels and change none: masks can follow them."""


def augmented(
    augmentation: Augmentation, images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return changed images, their labels, and what the loss takes for these.

    Labels [n] stay; of mixed images the loss takes shares [n, classes]. Masks [n, H, W] move as
    their images do; what comes in from outside is ignored there (255).
    """
    if labels.ndim == 1:
        images, targets = augmentation.mixed(augmentation.batch(images, generator), labels)
        return images, labels, targets
    state = generator.get_state()
    changed = augmentation.batch(images, generator)
    generator.set_state(state)
    # Black, 0, comes in: one more modulo 256 and one less again makes it 255, and 255 itself.
    moved = augmentation.batch((labels + 1)[:, None], generator)[:, 0] - 1
    return changed, moved, moved


@AUGMENTATIONS.register("none", summary="Images as they are.")
def unchanged(_: Setting) -> None:
    """Return no stage."""


@AUGMENTATIONS.register("flip", summary="Every other image mirrored, by chance.")
def flip(_: Setting) -> Stage:
    """Mirror images left to right with probability 1/2."""
    return Stage("RandomHorizontalFlip(p=0.5)", batch=_moved(0, mirror=True))


@AUGMENTATIONS.register("crop", summary="Shifted by up to an eighth of the side, black comes in.")
def crop(setting: Setting) -> Stage:
    """Crop images at random out of themselves padded by an eighth: 4 pixels for 32."""
    margin = setting.input.width // 8
    return Stage(_crop_text(setting, margin), batch=_moved(margin, mirror=False))


@AUGMENTATIONS.register(
    "crop-flip",
    summary="`crop` and `flip`.",
    source="He et al. 2016, arXiv 1512.03385, section 4.2",
)
def crop_flip(setting: Setting) -> Stage:
    """Crop and mirror at random."""
    margin = setting.input.width // 8
    text = f"{_crop_text(setting, margin)}, RandomHorizontalFlip(p=0.5)"
    return Stage(text, batch=_moved(margin, mirror=True))


@AUGMENTATIONS.register(
    "imagenet",
    summary="A crop of 8 to 100 % of the whole picture, brought to size and mirrored.",
    source="Szegedy et al. 2015, arXiv 1409.4842, section 6; the constants of torchvision",
)
def imagenet(setting: Setting) -> Stage:
    """Crop, resize and mirror at random, as networks are trained on ImageNet."""
    from torchvision.transforms import v2

    size = (setting.input.height, setting.input.width)
    both = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
    return Stage(", ".join(map(str, both.transforms)), picture=both, whole=True)


@AUGMENTATIONS.register(
    "randaugment",
    summary="Two of 14 changes of geometry and colour to each picture, drawn at random.",
    source="Cubuk et al. 2020, arXiv 1909.13719",
)
def randaugment(setting: Setting) -> Stage:
    """Change each picture by two operations of one strength."""
    from torchvision.transforms import v2

    if setting.input.channels not in (1, 3):
        raise InputError(
            f"--augment randaugment takes images of 1 or 3 channels, not {setting.input.channels}",
            code="BAD_OPTION",
            hint="take --augment crop-flip",
        )
    change = v2.RandAugment()
    return Stage(str(change), picture=change)


@AUGMENTATIONS.register(
    "mixup",
    summary="Each image mixed with another one of its batch, and their labels alike.",
    source="Zhang et al. 2018, arXiv 1710.09412",
)
def mixup(setting: Setting) -> Stage:
    """Mix images by a share that is drawn from Beta(0.2, 0.2) for every batch."""
    from torchvision.transforms import v2

    _check_mixing(setting, "mixup")
    mix = v2.MixUp(alpha=0.2, num_classes=setting.classes)

    def mixed(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        changed, shares = mix(images.float(), labels)
        return changed.round_().to(torch.uint8), shares

    return Stage(str(mix), mixed=mixed)


@AUGMENTATIONS.register(
    "cutmix",
    summary="A rectangle of each image replaced by that of another one of its batch.",
    source="Yun et al. 2019, arXiv 1905.04899",
)
def cutmix(setting: Setting) -> Stage:
    """Replace rectangles of any size, one place for every batch."""
    from torchvision.transforms import v2

    _check_mixing(setting, "cutmix")
    mix = v2.CutMix(alpha=1.0, num_classes=setting.classes)
    return Stage(str(mix), mixed=mix)


def _check_mixing(setting: Setting, name: str) -> None:
    if setting.classes < 2:
        raise InputError(
            f"--augment {name} mixes images of different classes, and there are not two",
            code="BAD_OPTION",
            hint=f"leave {name} out",
        )


def _crop_text(setting: Setting, margin: int) -> str:
    return f"RandomCrop(size=({setting.input.height}, {setting.input.width}), padding={margin})"


def _moved(margin: int, *, mirror: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda images, generator: _shift_and_flip(
        images, generator, margin=margin, mirror=mirror
    )


def _shift_and_flip(
    images: Tensor, generator: torch.Generator, *, margin: int, mirror: bool
) -> Tensor:
    """Do both with one gather per batch; what comes back is channels-last in memory."""
    count, _, height, width = images.shape
    top = torch.randint(2 * margin + 1, (count, 1), generator=generator)
    left = torch.randint(2 * margin + 1, (count, 1), generator=generator)
    rows = torch.arange(height) + top
    columns = torch.arange(width) + left
    if mirror:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded_width = width + 2 * margin
    flat = (rows * padded_width)[:, :, None] + columns[:, None, :]
    flat += torch.arange(count)[:, None, None] * ((height + 2 * margin) * padded_width)
    padded = nn.functional.pad(images.permute(0, 2, 3, 1), (0, 0, margin, margin, margin, margin))
    pixels = padded.reshape(-1, images.shape[1])
    return pixels[flat.to(images.device)].permute(0, 3, 1, 2)
