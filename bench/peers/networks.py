"""The networks that are measured, as plain data: each peer builds its own model from these layers.

They are read from the configurations that vultus reads. To add one, add an entry to NETWORKS. Shapes are (channels, height,
width), or (units,) after Flatten.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    filters: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class DepthwiseConv:
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class SqueezeExcitation:
    """x * sigmoid(W2 relu(W1 mean(x) + b1) + b2), with channels / ratio hidden units."""

    ratio: int = 4

    def hidden(self, channels: int) -> int:
        return max(channels // self.ratio, 1)


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


Layer = (
    Conv
    | DepthwiseConv
    | SqueezeExcitation
    | BatchNorm
    | Relu
    | MaxPool
    | GlobalAveragePool
    | Flatten
    | Dropout
    | Dense
    | Residual
)


@dataclass(frozen=True)
class Network:
    ours: tuple[str, ...]  # what `vultus bench` is told
    layers: tuple[Layer, ...]
    optimizer: str  # "adam" (learning rate 1e-3) or "nesterov" (learning rate 1e-2, momentum 0.9)
    input: Shape = (1, 48, 48)
    classes: int = 7


class Counts(NamedTuple):
    """Parameters include the running statistics. A multiply-add is two FLOP; other operations count as none."""

    parameters: int
    forward_flop: int
    training_flop: int


CLASSES = 7
# The peers have no Muon, with which these are trained.
NESTEROV = 'train.optimizer={type="sgd", learning_rate=0.01, momentum=0.9, nesterov=true}'


def _layers(keys: dict[str, Any]) -> tuple[Layer, ...]:
    """One layer of a configuration, and its activation."""
    keys = dict(keys)
    kind, activation = keys.pop("type"), keys.pop("activation", "linear")
    if activation not in ("linear", "relu"):
        raise ValueError(f"{kind}: activation {activation}")
    keys.pop("l2", None)
    if "padding" in keys:
        keys["padding"] = (keys["kernel"] - 1) // 2 if keys["padding"] == "same" else 0
    after = (Relu(),) if activation == "relu" else ()
    match kind:
        case "conv":
            return Conv(**keys), *after
        case "depthwise_conv":
            return DepthwiseConv(**keys), *after
        case "squeeze_excitation":
            return (SqueezeExcitation(**keys),)
        case "batch_norm":
            return (BatchNorm(**keys),)
        case "activation" if keys == {"function": "relu"}:
            return (Relu(),)
        case "max_pool":
            return (MaxPool(**keys),)
        case "global_average_pool":
            return (GlobalAveragePool(),)
        case "flatten":
            return (Flatten(),)
        case "dropout":
            return (Dropout(**keys),)
        case "dense":
            return Dense(**keys), *after
        case "residual" if after:
            return (Residual(_list(keys["layers"]), _list(keys.get("shortcut", []))),)
    raise ValueError(f"{kind} {keys}")


def _list(layers: list[dict[str, Any]]) -> tuple[Layer, ...]:
    return tuple(layer for keys in layers for layer in _layers(keys))


def _network(config: str, ours: tuple[str, ...], optimizer: str = "nesterov") -> Network:
    layers = _list(tomllib.loads((CONFIGS / config).read_text())["network"]["layers"])
    return Network(ours, (*layers, Dense(CLASSES)), optimizer, classes=CLASSES)


# Those of the models that come along.
OWN = ("fer-small", "fer-base", "fer-large")
NETWORKS: dict[str, Network] = {
    "S": _network("paper.toml", ("S",), "adam"),
    "R": _network("resnet.toml", ("R",)),
} | {name: _network(f"{name}.toml", (f"configs/{name}.toml", "--set", NESTEROV)) for name in OWN}


def output_shape(layer: Layer, shape: Shape) -> Shape:
    match layer:
        case Conv(filters, kernel, stride, padding):
            return (filters, *((side + 2 * padding - kernel) // stride + 1 for side in shape[1:]))
        case DepthwiseConv(kernel, stride, padding):
            return output_shape(Conv(shape[0], kernel, stride, padding), shape)
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
                case DepthwiseConv(kernel, bias=bias):
                    weights = shape[0] * kernel * kernel
                    parameters += weights + shape[0] * bias
                    forward += 2 * weights * after[1] * after[2]
                case SqueezeExcitation():
                    hidden = layer.hidden(shape[0])
                    parameters += 2 * shape[0] * hidden + shape[0] + hidden
                    forward += 4 * shape[0] * hidden
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
    pictures_gradient = 0 if len(network.layers) == 1 else count(Network((), first, network.optimizer)).forward_flop
    return Counts(parameters, forward, 3 * forward - pictures_gradient)


if __name__ == "__main__":
    for name, network in NETWORKS.items():
        counts = count(network)
        print(
            f"{name}: {counts.parameters:,} parameters, {counts.forward_flop / 1e6:.0f} MFLOP forward, "
            f"{counts.training_flop / 1e6:.0f} MFLOP forward and backward"
        )
