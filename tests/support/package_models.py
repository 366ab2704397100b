"""Models as they live in other packages: random weights, and small where that saves minutes.

Each is built by a function that imports its package: call it after `pytest.importorskip`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.support.weights import randomize_statistics_

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class PackageModel:
    """A model of `package`; `shape` is that of one example without the batch.

    `sizes` are other image shapes that its forward takes as well. Where it goes another way there
    (another table of positions), one file cannot hold both: `one_file` is False.
    """

    package: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...] = ()
    one_file: bool = True

    def build(self) -> nn.Module:
        """Return the model in evaluation mode, the same at every call."""
        torch.manual_seed(0)
        return randomize_statistics_(self.make()).eval()

    def example(self, batch: int = 1, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return random images."""
        generator = torch.Generator().manual_seed(batch)
        return torch.randn(batch, *(shape or self.shape), generator=generator)


# --- ultralytics ----------------------------------------------------------------------------------


def yolo(name: str) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    return DetectionModel(yaml_model_load(f"{name}.yaml"), verbose=False)


# --- transformers ---------------------------------------------------------------------------------


def detr() -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 1, 1],
        out_features=["stage4"],
    )  # fmt: skip
    return DetrForObjectDetection(
        DetrConfig(
            backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
            backbone=None, d_model=64, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=128,
            decoder_ffn_dim=128, encoder_attention_heads=4, decoder_attention_heads=4,
            num_queries=20, num_labels=10,
        )
    )  # fmt: skip


def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(
        SegformerConfig(
            hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 6],
            decoder_hidden_size=64, num_labels=10,
        )
    )  # fmt: skip


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256,
            image_size=64, patch_size=16, num_labels=10,
        )
    )  # fmt: skip


def dinov2() -> nn.Module:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    return Dinov2ForImageClassification(
        Dinov2Config(
            hidden_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=70,
            patch_size=14, num_labels=10, layerscale_value=0.5,
        )
    )  # fmt: skip


def sam_encoder() -> nn.Module:
    from transformers import SamVisionConfig, SamVisionModel

    return SamVisionModel(
        SamVisionConfig(
            hidden_size=64, output_channels=32, num_hidden_layers=4, num_attention_heads=4,
            image_size=128, patch_size=16, window_size=3, global_attn_indexes=[1, 3], mlp_dim=128,
            num_pos_feats=16,
        )
    )  # fmt: skip


# --- segmentation-models-pytorch, MONAI -----------------------------------------------------------


def segmentation(name: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, name)("resnet18", encoder_weights=None, classes=4)


def unet_3d() -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(
        spatial_dims=3, in_channels=1, out_channels=2, channels=(16, 32, 64), strides=(2, 2),
        num_res_units=2, norm="batch",
    )  # fmt: skip


# --- of our own -----------------------------------------------------------------------------------


class TextReader(nn.Module):
    """Reads a line of text: convolutions, then an LSTM in both directions over the columns."""

    def __init__(self, letters: int = 20, hidden: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, pool in ((1, 32, (2, 2)), (32, 64, (2, 2)), (64, 96, (2, 1))):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU(), nn.MaxPool2d(pool)]
        self.features = nn.Sequential(*layers)
        self.recurrent = nn.LSTM(96 * 4, hidden, num_layers=2, bidirectional=True)
        self.letters = nn.Linear(2 * hidden, letters)

    def forward(self, images: Tensor) -> Any:
        """Return the log-probabilities of letters, `[columns, batch, letters]`."""
        columns = self.features(images).flatten(1, 2).permute(2, 0, 1)
        read, _ = self.recurrent(columns)
        return self.letters(read).log_softmax(-1)


MODELS = {
    "yolov8n": PackageModel("ultralytics", lambda: yolo("yolov8n"), (3, 64, 64), ((3, 96, 64),)),
    "yolo11n": PackageModel("ultralytics", lambda: yolo("yolo11n"), (3, 64, 64), ((3, 96, 64),)),
    "detr": PackageModel("transformers", detr, (3, 64, 64), ((3, 96, 64),)),
    "segformer": PackageModel("transformers", segformer, (3, 64, 64), ((3, 96, 64),)),
    "vit": PackageModel("transformers", vit, (3, 64, 64)),
    "dinov2": PackageModel("transformers", dinov2, (3, 70, 70), ((3, 84, 70),), one_file=False),
    "sam-encoder": PackageModel("transformers", sam_encoder, (3, 128, 128)),
    "unet++": PackageModel(
        "segmentation_models_pytorch", lambda: segmentation("UnetPlusPlus"), (3, 64, 64),
        ((3, 96, 64),),
    ),
    "fpn": PackageModel(
        "segmentation_models_pytorch", lambda: segmentation("FPN"), (3, 64, 64), ((3, 96, 64),)
    ),
    "monai-unet-3d": PackageModel("monai", unet_3d, (1, 16, 16, 16), ((1, 24, 16, 16),)),
    "crnn": PackageModel("torch", TextReader, (1, 32, 64)),
}  # fmt: skip
"""Models by name."""
