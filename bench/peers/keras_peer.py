"""Keras on TensorFlow, training only. Variants: `fit`, `train-on-batch`, and `fit-xla` (jit_compile)."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers as k

import networks as n
from peer import POOL, Clock, Job, job, memory_mb


def apply(layers: tuple[n.Layer, ...], x: keras.KerasTensor) -> keras.KerasTensor:
    for layer in layers:
        match layer:
            case n.Residual(body, shortcut):
                x = k.ReLU()(k.Add()([apply(body, x), apply(shortcut, x)]))
            case n.SqueezeExcitation():
                channels = x.shape[-1]
                factors = k.Dense(layer.hidden(channels), activation="relu")(k.GlobalAveragePooling2D()(x))
                factors = k.Dense(channels, activation="sigmoid")(factors)
                x = k.Multiply()([x, k.Reshape((1, 1, channels))(factors)])
            case _:
                x = simple(layer)(x)
    return x


def simple(layer: n.Layer) -> k.Layer:
    match layer:
        case n.Conv(filters, kernel, stride, padding, bias):
            return k.Conv2D(filters, kernel, stride, "same" if padding else "valid", use_bias=bias)
        case n.DepthwiseConv(kernel, stride, padding, bias):
            return k.DepthwiseConv2D(kernel, stride, "same" if padding else "valid", use_bias=bias)
        case n.BatchNorm(epsilon, momentum):
            return k.BatchNormalization(epsilon=epsilon, momentum=momentum)
        case n.Relu():
            return k.ReLU()
        case n.MaxPool(size):
            return k.MaxPooling2D(size)
        case n.GlobalAveragePool():
            return k.GlobalAveragePooling2D()
        case n.Flatten():
            return k.Flatten()
        case n.Dropout(rate):
            return k.Dropout(rate)
        case n.Dense(units):
            return k.Dense(units)
    raise TypeError(layer)


def build(network: n.Network, xla: bool) -> keras.Model:
    channels, height, width = network.input
    pictures = keras.Input((height, width, channels))
    model = keras.Model(pictures, apply(network.layers, pictures))
    if network.optimizer == "adam":
        optimizer = keras.optimizers.Adam(1e-3)
    else:
        optimizer = keras.optimizers.SGD(1e-2, momentum=0.9, nesterov=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=xla)
    return model


class Ticker(keras.callbacks.Callback):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if not self.clock.tick():
            self.model.stop_training = True


def train(job: Job, clock: Clock, model: keras.Model, pictures: np.ndarray, labels: np.ndarray) -> None:
    if job.variant.startswith("fit"):
        # Whole batches, in memory, without end: one epoch that the callback stops.
        data = tf.data.Dataset.from_tensor_slices((pictures, labels)).repeat().prefetch(1)
        model.fit(data, epochs=1, steps_per_epoch=10**9, callbacks=[Ticker(clock)], shuffle=False, verbose=0)
        return
    going, i = True, 0
    while going:
        float(model.train_on_batch(pictures[i], labels[i]))
        going, i = clock.tick(), (i + 1) % POOL


def main() -> None:
    import_rss_mb = memory_mb("VmRSS")
    this = job()
    keras.utils.set_random_seed(1)
    tf.config.threading.set_intra_op_parallelism_threads(this.threads)
    tf.config.threading.set_inter_op_parallelism_threads(this.threads)
    model = build(this.network, this.variant.endswith("-xla"))
    random = np.random.default_rng(1)
    channels, height, width = this.network.input
    pictures = random.random((POOL, this.batch, height, width, channels), dtype=np.float32)
    labels = random.integers(this.network.classes, size=(POOL, this.batch), dtype=np.int32)
    clock = Clock(this.seconds)
    train(this, clock, model, pictures, labels)
    clock.report(this, model.count_params(), import_rss_mb)


if __name__ == "__main__":
    main()
