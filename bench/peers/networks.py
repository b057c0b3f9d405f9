"""The networks that are measured, as plain data: each peer builds its own model from these layers.

To add a network, add an entry to NETWORKS. Shapes are (channels, height, width), or (units,) after Flatten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    filters: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class BatchNorm:
    """`momentum` as in Keras: the share of the old running value that is kept."""

    epsilon: float = 1e-3
    momentum: float = 0.99


@dataclass(frozen=True)
class Relu:
    pass


@dataclass(frozen=True)
class MaxPool:
    size: int = 2


@dataclass(frozen=True)
class GlobalAveragePool:
    pass


@dataclass(frozen=True)
class Flatten:
    pass


@dataclass(frozen=True)
class Dropout:
    rate: float


@dataclass(frozen=True)
class Dense:
    units: int


@dataclass(frozen=True)
class Residual:
    """relu(body(x) + shortcut(x)); an empty shortcut passes x on."""

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


Layer = Conv | BatchNorm | Relu | MaxPool | GlobalAveragePool | Flatten | Dropout | Dense | Residual


@dataclass(frozen=True)
class Network:
    layers: tuple[Layer, ...]
    optimizer: str  # "adam" (learning rate 1e-3) or "nesterov" (learning rate 1e-2, momentum 0.9)
    input: Shape = (1, 48, 48)
    classes: int = 7


class Counts(NamedTuple):
    """Parameters include the running statistics. A multiply-add is two FLOP; other operations count as none."""

    parameters: int
    forward_flop: int
    training_flop: int


def _basic_block(width: int, stride: int) -> Residual:
    def conv(stride: int) -> Conv:
        return Conv(width, stride=stride, padding=1, bias=False)

    body = (conv(stride), BatchNorm(), Relu(), conv(1), BatchNorm())
    shortcut = () if stride == 1 else (Conv(width, kernel=1, stride=stride, bias=False), BatchNorm())
    return Residual(body, shortcut)


NETWORKS: dict[str, Network] = {
    # configs/paper.toml, with seven classes.
    "S": Network(
        optimizer="adam",
        layers=(
            *(Conv(64), Relu(), BatchNorm(), MaxPool(), Dropout(0.25)),
            *(Conv(128), Relu(), BatchNorm(), MaxPool(), Dropout(0.25)),
            *(Flatten(), Dense(128), Relu(), BatchNorm(), Dropout(0.25)),
            Dense(7),
        ),
    ),
    # configs/resnet.toml: ResNet-18 without early downsampling.
    "R": Network(
        optimizer="nesterov",
        layers=(
            *(Conv(32, padding=1, bias=False), BatchNorm(), Relu()),
            *(_basic_block(32, 1), _basic_block(32, 1)),
            *(_basic_block(64, 2), _basic_block(64, 1)),
            *(_basic_block(128, 2), _basic_block(128, 1)),
            *(_basic_block(256, 2), _basic_block(256, 1)),
            *(GlobalAveragePool(), Dense(7)),
        ),
    ),
}


def output_shape(layer: Layer, shape: Shape) -> Shape:
    match layer:
        case Conv(filters, kernel, stride, padding):
            return (filters, *((side + 2 * padding - kernel) // stride + 1 for side in shape[1:]))
        case MaxPool(size):
            return (shape[0], shape[1] // size, shape[2] // size)
        case GlobalAveragePool():
            return shape[:1]
        case Flatten():
            return (shape[0] * shape[1] * shape[2],)
        case Dense(units):
            return (units,)
        case Residual(body):
            for inner in body:
                shape = output_shape(inner, shape)
            return shape
        case _:
            return shape


def count(network: Network) -> Counts:
    parameters = forward = 0

    def visit(layers: tuple[Layer, ...], shape: Shape) -> None:
        nonlocal parameters, forward
        for layer in layers:
            after = output_shape(layer, shape)
            match layer:
                case Conv(filters, kernel, bias=bias):
                    weights = filters * shape[0] * kernel * kernel
                    parameters += weights + filters * bias
                    forward += 2 * weights * after[1] * after[2]
                case Dense(units):
                    parameters += units * shape[0] + units
                    forward += 2 * units * shape[0]
                case BatchNorm():
                    parameters += 4 * shape[0]
                case Residual(body, shortcut):
                    visit(body, shape)
                    visit(shortcut, shape)
            shape = after

    visit(network.layers, network.input)
    # Backward: the gradients of the weights and of each layer's input cost as much as forward, each; the gradient of
    # the pictures is not needed.
    first = network.layers[:1]
    pictures_gradient = 0 if len(network.layers) == 1 else count(Network(first, network.optimizer)).forward_flop
    return Counts(parameters, forward, 3 * forward - pictures_gradient)


if __name__ == "__main__":
    for name, network in NETWORKS.items():
        counts = count(network)
        print(
            f"{name}: {counts.parameters:,} parameters, {counts.forward_flop / 1e6:.0f} MFLOP forward, "
            f"{counts.training_flop / 1e6:.0f} MFLOP forward and backward"
        )
