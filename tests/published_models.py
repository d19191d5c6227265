"""What is published of the networks: sizes, costs, and the name and shape of every layer.

ResNets and VGGs as torchvision names them, wide ResNets as xternalz's WideResNet-pytorch does.
The layers are written out by rule, apart from the networks' own code; each function returns
{name in the state_dict: shape}.
"""

from __future__ import annotations

from collections.abc import Sequence

# Parameters of each network as it is registered.
PARAMETERS = {
    # torchvision's pages
    "resnet18_imagenet": 11_689_512, "resnet50": 25_557_032,
    "vgg16_imagenet": 138_365_992, "vgg19_imagenet": 143_678_248,
    # kuangliu's pytorch-cifar, for 10 classes
    "resnet18": 11_173_962, "vgg16": 14_728_266, "vgg19": 20_040_522,
    # pytorchcv
    "wrn28_10": 36_479_194,
    # chenyaofo's pytorch-cifar-models say 0.27 M and 0.47 M. By hand, with c = 16 channels:
    # stem 27c + 2c; stage 1: n (18c² + 4c); stage 2: its first block 18c² + 36c² + 8c and the
    # shortcut's 2c² + 4c, then n - 1 of 72c² + 8c; stage 3 likewise from 2c; 40c + 10.
    # n = 3: 464 + 14,016 + 51,648 + 205,696 + 650; n = 5: 464 + 23,360 + 88,768 + 353,664 + 650
    "resnet20": 272_474, "resnet32": 466_906,
    # c = 32: 928 + 92,800 + 353,664 + 1,411,840 + 1,290
    "resnet32_x2": 1_860_522,
    # by hand: 432 + (14,432 + 2 x 18,560) + (57,536 + 2 x 73,984) + (229,760 + 2 x 295,424)
    # + 256 + 1,290
    "wrn22_2": 1_079_642,
    # by hand: 1,152 + 4 x 147,456 + 5 x 256 + 1,290
    "digits-cnn": 593_546,
}  # fmt: skip

# Forward multiply-adds of one image: they tell where the strides stand.
MULTIPLY_ADDS = {
    # torchvision's pages ("GFLOPS")
    "resnet18_imagenet": "1.81 G", "resnet50": "4.09 G",
    "vgg16_imagenet": "15.47 G", "vgg19_imagenet": "19.63 G",
    # chenyaofo's pytorch-cifar-models
    "resnet20": "40.81 M", "resnet32": "69.12 M",
    # pytorchcv says 5,246.98 M, BatchNorms included
    "wrn28_10": "5.2 G",
    # DA2Lite's table of CIFAR-10 networks
    "resnet18": "0.56 G", "vgg16": "0.31 G", "vgg19": "0.40 G",
}  # fmt: skip

Shapes = dict[str, tuple[int, ...]]


def conv(name: str, filters: int, channels: int, size: int) -> Shapes:
    return {f"{name}.weight": (filters, channels, size, size)}


def norm(name: str, channels: int) -> Shapes:
    vectors = {
        f"{name}.{x}": (channels,) for x in ("weight", "bias", "running_mean", "running_var")
    }
    return vectors | {f"{name}.num_batches_tracked": ()}


def linear(name: str, features: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (features, inputs), f"{name}.bias": (features,)}


def resnet(
    blocks: Sequence[int], sizes: Sequence[int], stem: int, channels: int = 64, classes: int = 10
) -> Shapes:
    """Layers of a ResNet whose blocks have convolutions of ``sizes``; three: a bottleneck."""
    found = conv("conv1", channels, 3, stem) | norm("bn1", channels)
    last = channels
    for stage, count in enumerate(blocks):
        inner = channels << stage
        outer = inner * 4 if len(sizes) == 3 else inner
        for i in range(count):
            at, chain = f"layer{stage + 1}.{i}", [last, *[inner] * (len(sizes) - 1), outer]
            for j, size in enumerate(sizes):
                found |= conv(f"{at}.conv{j + 1}", chain[j + 1], chain[j], size)
                found |= norm(f"{at}.bn{j + 1}", chain[j + 1])
            if last != outer:
                found |= conv(f"{at}.downsample.0", outer, last, 1)
                found |= norm(f"{at}.downsample.1", outer)
            last = outer
    return found | linear("fc", classes, last)


def vgg(places: Sequence[Sequence[int]], classifier: Shapes) -> Shapes:
    """Layers of a VGG whose convolutions stand at ``places`` in ``features``."""
    found: Shapes = {}
    last = 3
    for filters, stage in zip((64, 128, 256, 512, 512), places, strict=True):
        for place in stage:
            found |= conv(f"features.{place}", filters, last, 3)
            found |= {f"features.{place}.bias": (filters,)}
            found |= norm(f"features.{place + 1}", filters)
            last = filters
    return found | classifier


def wide(blocks: int, width: int) -> Shapes:
    """Layers of a wide ResNet with ``blocks`` blocks a stage."""
    found, last = conv("conv1", 16, 3, 3), 16
    for stage in (1, 2, 3):
        channels = 8 * width << stage
        for i in range(blocks):
            at = f"block{stage}.layer.{i}"
            found |= norm(f"{at}.bn1", last) | conv(f"{at}.conv1", channels, last, 3)
            found |= norm(f"{at}.bn2", channels) | conv(f"{at}.conv2", channels, channels, 3)
            if last != channels:
                found |= conv(f"{at}.convShortcut", channels, last, 1)
            last = channels
    return found | norm("bn1", last) | linear("fc", 10, last)


AT16 = (0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40)
AT19 = (0, 3), (7, 10), (14, 17, 20, 23), (27, 30, 33, 36), (40, 43, 46, 49)
ONE = linear("classifier", 10, 512)
THREE = (
    linear("classifier.0", 4096, 25088)
    | linear("classifier.3", 4096, 4096)
    | linear("classifier.6", 1000, 4096)
)
LAYERS = {
    "resnet18_imagenet": resnet((2, 2, 2, 2), (3, 3), 7, classes=1000),
    "resnet18": resnet((2, 2, 2, 2), (3, 3), 3),
    "resnet50": resnet((3, 4, 6, 3), (1, 3, 1), 7, classes=1000),
    "resnet20": resnet((3, 3, 3), (3, 3), 3, channels=16),
    "resnet32": resnet((5, 5, 5), (3, 3), 3, channels=16),
    "resnet32_x2": resnet((5, 5, 5), (3, 3), 3, channels=32),
    "vgg16": vgg(AT16, ONE),
    "vgg19": vgg(AT19, ONE),
    "vgg16_imagenet": vgg(AT16, THREE),
    "vgg19_imagenet": vgg(AT19, THREE),
    "wrn22_2": wide(3, 2),
    "wrn28_10": wide(4, 10),
}
# torchvision's names for its networks
TORCHVISION = {
    "resnet18_imagenet": "resnet18",
    "resnet50": "resnet50",
    "vgg16_imagenet": "vgg16_bn",
    "vgg19_imagenet": "vgg19_bn",
}
# state_dict entries of torchvision's own, num_batches_tracked included
ENTRIES = {"resnet18_imagenet": 122, "resnet50": 320, "vgg16_imagenet": 97, "vgg19_imagenet": 118}
