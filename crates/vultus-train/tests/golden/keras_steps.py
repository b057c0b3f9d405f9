"""Makes keras_steps.safetensors: three training steps of Keras, for the trainable network to repeat.

Run, from this folder:

    python -m pip install tensorflow-cpu keras safetensors numpy
    python keras_steps.py keras_steps.safetensors

It prints the versions; the stored file was made with python 3.11.7, keras 3.15.1, tensorflow 2.21.0, numpy 2.4.6.

Four cases, each a small network of the paper's shape on 20 x 20 pictures of random raw pixels, 6 classes, 3 batches of 8:

    paper          valid 3x3 convolutions, max pooling, Adam(0.001, epsilon 1e-7)
    sgd_momentum   the same network and start, SGD(0.001, momentum 0.9)
    sgd_nesterov   the same, with Nesterov's momentum
    same_average   'same' 5x5 convolutions, average pooling, Adam

The loss is categorical cross-entropy of the softmax, each sample times the weight of its class, divided by the number of
samples (Keras' `sum_over_batch_size`), plus the L2 penalties. Before anything is stored, every step is compared with
`model.train_on_batch(x, y, sample_weight=...)` on a second model with the same start, and with a third model in double
precision: what is stored must be well conditioned, or another correct implementation could not repeat it. (Adam divides
by the size of a gradient, so a gradient that is zero but for rounding would move a weight either way.)

All tensors are in the layout of Keras, which is also ours: pictures [sample, height, width, channel], convolution kernels
[height, width, in, out], dense kernels [in, out], flattened row by row with the channels of a pixel side by side; labels
are class indices (int64).

Names, with <i> the index in our list of layers (activations belong to their layer; the head, softmax, is the last):

    <case>/initial/layers.<i>.<weight|bias|gamma|beta|running_mean|running_variance>
    <case>/step<k>/pixels, labels, sample_weights, loss (penalties included), cross_entropy (without them), predictions
                                                         k = 1, 2, 3; predictions: softmax in training mode, of the
                                                         batch statistics, before the update
    <case>/step<k>/gradient/layers.<i>.<name>            of the loss; cases with Adam only
    <case>/step<k>/updated/layers.<i>.<name>             after the step, running statistics included (sgd cases: step 3)
    <case>/inference                                     softmax in inference mode, after step 3, of the pixels of step 1

The metadata hold, for each case, `<case>/network` and `<case>/optimizer` as JSON in the format of our configuration
(the network without its head), `classes`, `class_weights` and `versions`.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
# Plain kernels in place of fused ones, and one order of summation.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import keras
import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

SIDE, FILTERS, UNITS, CLASSES, BATCH, STEPS = 20, 4, 8, 6, 8, 3
L2 = 0.01
# Largest allowed distance of the stored numbers from double precision: of a gradient relative to the largest value of its
# tensor, of a weight as (relative, absolute). With raw pixels the gradient of the first bias is a small remainder of
# large sums, and for most starts rounding alone moves it by more: the seeds below were chosen to keep within the limits.
GRADIENT_LIMIT, WEIGHT_LIMITS = 5e-5, (1.5e-5, 1.5e-6)
CLASS_WEIGHTS = np.array([1.18, 1.15, 0.65, 0.95, 0.98, 1.49], np.float32)
OUR_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "running_mean",
    "moving_variance": "running_variance",
}
ADAM = {"type": "adam", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7}
SGD = {"type": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "nesterov": False}
CASES = {
    "paper": {"seed": 182, "padding": "valid", "kernel": 3, "pool": "max_pool", "optimizer": ADAM},
    "sgd_momentum": {"seed": 182, "padding": "valid", "kernel": 3, "pool": "max_pool", "optimizer": SGD},
    "sgd_nesterov": {"seed": 182, "padding": "valid", "kernel": 3, "pool": "max_pool", "optimizer": SGD | {"nesterov": True}},
    "same_average": {"seed": 185, "padding": "same", "kernel": 5, "pool": "average_pool", "optimizer": ADAM},
}


def network_config(case):
    """The network in our configuration's form, without the head."""
    conv = lambda filters: {
        "type": "conv", "filters": filters, "kernel": case["kernel"], "stride": 1,
        "padding": case["padding"], "activation": "relu", "l2": L2,
    }
    norm = {"type": "batch_norm", "momentum": 0.99, "epsilon": 1e-3}
    pool = {"type": case["pool"], "size": 2}
    dense = {"type": "dense", "units": UNITS, "activation": "relu", "l2": L2}
    return {"layers": [conv(FILTERS), norm, pool, conv(2 * FILTERS), norm, pool, {"type": "flatten"}, dense, norm]}


def build(case, precision="float32"):
    """The Keras model, one Keras layer for each of ours; the defaults of Keras are left alone."""
    keras.config.set_dtype_policy(precision)
    layers = [keras.Input((SIDE, SIDE, 1))]
    for config in network_config(case)["layers"]:
        penalty = keras.regularizers.l2(config.get("l2", 0.0))
        match config["type"]:
            case "conv":
                layer = keras.layers.Conv2D(
                    config["filters"], config["kernel"], padding=config["padding"], activation="relu",
                    kernel_regularizer=penalty,
                )
            case "dense":
                layer = keras.layers.Dense(config["units"], activation="relu", kernel_regularizer=penalty)
            case "batch_norm":
                layer = keras.layers.BatchNormalization()
                assert (layer.momentum, layer.epsilon) == (config["momentum"], config["epsilon"])
            case "max_pool":
                layer = keras.layers.MaxPooling2D(2)
            case "average_pool":
                layer = keras.layers.AveragePooling2D(2)
            case "flatten":
                layer = keras.layers.Flatten()
        layers.append(layer)
    layers.append(keras.layers.Dense(CLASSES, activation="softmax"))
    return keras.Sequential(layers)


def build_optimizer(case):
    config = case["optimizer"]
    if config["type"] == "adam":
        return keras.optimizers.Adam(config["learning_rate"], config["beta1"], config["beta2"], config["epsilon"])
    return keras.optimizers.SGD(config["learning_rate"], config["momentum"], config["nesterov"])


def in_our_layout(model, variable, value):
    """Our name and layout of a Keras variable's value (or of its gradient)."""
    value = np.asarray(value)
    for index, layer in enumerate(model.layers):
        if any(variable is own for own in layer.variables):
            break
    kind = variable.path.split("/")[-1]
    return f"layers.{index}.{OUR_NAMES[kind]}", np.ascontiguousarray(value, np.float32)


def batches(generator):
    for _ in range(STEPS):
        pixels = generator.integers(0, 256, (BATCH, SIDE, SIDE, 1)).astype(np.float32)
        labels = generator.integers(0, CLASSES, BATCH).astype(np.int64)
        yield pixels, labels


def one_step(model, optimizer, pixels, labels, weights):
    """A training step by hand; returns loss, cross-entropy, predictions and gradients."""
    one_hot = keras.utils.to_categorical(labels, CLASSES)
    cross_entropy_of = keras.losses.CategoricalCrossentropy(reduction="sum_over_batch_size", dtype=model.dtype)
    with tf.GradientTape() as tape:
        predictions = model(pixels, training=True)
        cross_entropy = cross_entropy_of(one_hot, predictions, sample_weight=weights)
        loss = cross_entropy + tf.add_n(model.losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return float(loss), float(cross_entropy), np.asarray(predictions), [np.asarray(gradient) for gradient in gradients]


def distance(values, exact):
    """Largest |difference| over the largest |value|, tensor by tensor; the worst of them."""
    differences = [np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-6) for a, b in zip(values, exact)]
    return max(differences)


def run(name, case, tensors):
    keras.utils.set_random_seed(case["seed"])
    model, twin, exact = build(case), build(case), build(case, "float64")
    generator = np.random.default_rng(2013)
    # The start that Keras gives to biases, gamma and beta (0 and 1) would hide mistakes.
    for variable in model.variables:
        kind = variable.path.split("/")[-1]
        if kind in ("bias", "beta", "moving_mean"):
            variable.assign(generator.normal(0.0, 0.1, variable.shape))
        elif kind in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    twin.set_weights(model.get_weights())
    exact.set_weights(model.get_weights())
    start = [np.array(value) for value in model.get_weights()]
    put = lambda key, value: tensors.__setitem__(f"{name}/{key}", np.ascontiguousarray(value))
    for variable in model.variables:
        put("initial/{}".format(in_our_layout(model, variable, variable)[0]), in_our_layout(model, variable, variable)[1])

    optimizer = build_optimizer(case)
    optimizer.build(model.trainable_variables)
    exact_optimizer = build_optimizer(case)
    exact_optimizer.build(exact.trainable_variables)
    # Keras' train_on_batch; "categorical_crossentropy" as in the paper, on one-hot labels.
    twin.compile(build_optimizer(case), "categorical_crossentropy")
    every_tensor = case["optimizer"]["type"] == "adam"
    for step, (pixels, labels) in enumerate(batches(generator), start=1):
        weights = CLASS_WEIGHTS[labels]
        one_hot = keras.utils.to_categorical(labels, CLASSES)
        loss, cross_entropy, predictions, gradients = one_step(model, optimizer, pixels, labels, weights)

        # What is stored must be what Keras' own step does, and what the formula says.
        true_probability = predictions[np.arange(BATCH), labels].astype(np.float64)
        by_hand = float(np.mean(-np.log(true_probability) * weights))
        np.testing.assert_allclose(cross_entropy, by_hand, rtol=1e-5)
        twin_loss = twin.train_on_batch(pixels, one_hot, sample_weight=weights)
        twin.reset_metrics()
        np.testing.assert_allclose(np.ravel(twin_loss)[0], loss, rtol=1e-5)
        for own, other in zip(model.variables, twin.variables):
            assert own.path.split("/")[-1] == other.path.split("/")[-1]
            np.testing.assert_allclose(np.asarray(own), np.asarray(other), *WEIGHT_LIMITS, err_msg=own.path)
        exact_loss, _, _, exact_gradients = one_step(exact, exact_optimizer, pixels.astype(np.float64), labels, weights)
        of_gradients = distance(gradients, exact_gradients)
        assert abs(loss / exact_loss - 1) < 1e-5
        assert of_gradients < GRADIENT_LIMIT or not every_tensor, of_gradients  # otherwise not stored
        of_weights = distance(model.get_weights(), exact.get_weights())
        for own, other in zip(model.variables, exact.variables):
            np.testing.assert_allclose(np.asarray(own), np.asarray(other), *WEIGHT_LIMITS, err_msg=own.path)

        put(f"step{step}/pixels", pixels)
        put(f"step{step}/labels", labels)
        put(f"step{step}/sample_weights", weights)
        put(f"step{step}/loss", np.array([loss], np.float32))
        put(f"step{step}/cross_entropy", np.array([cross_entropy], np.float32))
        put(f"step{step}/predictions", predictions)
        if every_tensor:
            for variable, gradient in zip(model.trainable_variables, gradients):
                our_name, value = in_our_layout(model, variable, gradient)
                put(f"step{step}/gradient/{our_name}", value)
        if every_tensor or step == STEPS:
            for variable in model.variables:
                our_name, value = in_our_layout(model, variable, variable)
                put(f"step{step}/updated/{our_name}", value)
        print(
            f"{name} step {step}: loss {loss:.6f}, cross-entropy {cross_entropy:.6f}; distance from double precision: "
            f"gradients {of_gradients:.1e}, weights {of_weights:.1e}"
        )
    first = tensors[f"{name}/step1/pixels"]
    put("inference", np.asarray(model(first, training=False)))
    assert all(np.any(new != old) for new, old in zip(model.get_weights(), start)), "a variable never changed"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python keras_steps.py OUT.safetensors")
    versions = f"python {sys.version.split()[0]}, keras {keras.__version__}, tensorflow {tf.__version__}, numpy {np.__version__}"
    print(versions)
    assert keras.backend.backend() == "tensorflow"
    tensors, metadata = {}, {"versions": versions, "classes": str(CLASSES)}
    metadata["class_weights"] = json.dumps([round(float(weight), 6) for weight in CLASS_WEIGHTS])
    for name, case in CASES.items():
        run(name, case, tensors)
        metadata[f"{name}/network"] = json.dumps(network_config(case))
        metadata[f"{name}/optimizer"] = json.dumps(case["optimizer"])
    save_file(tensors, sys.argv[1], metadata)
    print(f"{len(tensors)} tensors, {os.path.getsize(sys.argv[1])} bytes")


if __name__ == "__main__":
    main()
