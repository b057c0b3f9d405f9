"""PyTorch. Variants: `contiguous` (NCHW), `channels-last`, `compile` (channels-last and torch.compile)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import networks as n
from peer import POOL, Clock, Job, job, memory_mb


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        factors = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return x * factors[:, :, None, None]


def module(layer: n.Layer, shape: n.Shape) -> nn.Module:
    match layer:
        case n.Conv(filters, kernel, stride, padding, bias):
            return nn.Conv2d(shape[0], filters, kernel, stride, padding, bias=bias)
        case n.DepthwiseConv(kernel, stride, padding, bias):
            return nn.Conv2d(shape[0], shape[0], kernel, stride, padding, groups=shape[0], bias=bias)
        case n.SqueezeExcitation():
            return SqueezeExcitation(shape[0], layer.hidden(shape[0]))
        case n.BatchNorm(epsilon, momentum):
            kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
            return kind(shape[0], epsilon, 1 - momentum)
        case n.Relu():
            return nn.ReLU(inplace=True)
        case n.MaxPool(size):
            return nn.MaxPool2d(size)
        case n.GlobalAveragePool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case n.Flatten():
            return nn.Flatten()
        case n.Dropout(rate):
            return nn.Dropout(rate)
        case n.Dense(units):
            return nn.Linear(shape[0], units)
        case n.Residual(body, shortcut):
            return Residual(sequential(body, shape), sequential(shortcut, shape))
    raise TypeError(layer)


def sequential(layers: tuple[n.Layer, ...], shape: n.Shape) -> nn.Sequential:
    modules = []
    for layer in layers:
        modules.append(module(layer, shape))
        shape = n.output_shape(layer, shape)
    return nn.Sequential(*modules)


def optimizer(network: n.Network, model: nn.Module) -> torch.optim.Optimizer:
    if network.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, nesterov=True, fused=True)


def parameter_count(model: nn.Module) -> int:
    running = (b for b in model.buffers() if b.dtype.is_floating_point)
    return sum(t.numel() for t in (*model.parameters(), *running))


def train(job: Job, clock: Clock, model: nn.Module, pictures: Tensor, labels: Tensor) -> None:
    update = optimizer(job.network, model)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    forward = torch.compile(loss_of) if job.variant == "compile" else loss_of
    going, i = True, 0
    while going:
        update.zero_grad(set_to_none=True)
        loss = forward(pictures[i], labels[i])
        loss.backward()
        update.step()
        loss.item()
        going, i = clock.tick(), (i + 1) % POOL


def infer(job: Job, clock: Clock, model: nn.Module, pictures: Tensor) -> None:
    if job.variant == "compile":
        torch._inductor.config.freezing = True  # weights become constants, and batch norm is folded
    forward = torch.compile(model) if job.variant == "compile" else model
    going, i = True, 0
    with torch.inference_mode():
        while going:
            forward(pictures[i])
            going, i = clock.tick(), (i + 1) % POOL


def main() -> None:
    import_rss_mb = memory_mb("VmRSS")
    this = job()
    torch.manual_seed(1)
    torch.set_num_threads(this.threads)
    torch.set_num_interop_threads(1)
    model = sequential(this.network.layers, this.network.input).train(this.mode == "train")
    if this.mode == "export":
        example = torch.zeros(2, *this.network.input)
        batch = {0: torch.export.Dim("batch")}
        torch.onnx.export(model, (example,), this.model_file, dynamo=True, dynamic_shapes=(batch,), external_data=False)
        return

    layout = torch.contiguous_format if this.variant == "contiguous" else torch.channels_last
    model = model.to(memory_format=layout)
    pictures = torch.rand(POOL, this.batch, *this.network.input)
    # One channel: both layouts are the same bytes, but the strides tell PyTorch which kernels to take.
    batches = [batch.to(memory_format=layout) for batch in pictures]
    labels = torch.randint(this.network.classes, (POOL, this.batch))
    clock = Clock(this.seconds)
    if this.mode == "train":
        train(this, clock, model, batches, labels)
    else:
        infer(this, clock, model, batches)
    clock.report(this, parameter_count(model), import_rss_mb)


if __name__ == "__main__":
    main()
