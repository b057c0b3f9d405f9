//! Three training steps against Keras: same weights and batches in, same losses, gradients, updated weights and running
//! statistics out. `golden/keras_steps.py` made the numbers.

use std::path::Path;

use burn::tensor::Device;
use safetensors::SafeTensors;
use vultus::network::{NetworkConfig, ResolvedNetwork};
use vultus::plan::Plan;
use vultus::weights::{WeightTensor, Weights};
use vultus_train::config::OptimizerConfig;
use vultus_train::model::{Network, values_of};
use vultus_train::operations::Operations;
use vultus_train::optimizer::Optimizer;

/// Largest difference allowed, relative to the largest value of the tensor.
const TOLERANCE: f32 = 1e-4;

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keras_steps.safetensors");
        Self { bytes: fs_err::read(path).unwrap() }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn text(&self, key: &str) -> String {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).unwrap();
        metadata.metadata().as_ref().unwrap()[key].clone()
    }

    fn tensor(&self, name: &str) -> WeightTensor {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        WeightTensor { shape: view.shape().to_vec(), data }
    }

    fn labels(&self, name: &str) -> Vec<usize> {
        let file = self.file();
        let view = file.tensor(name).unwrap();
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect()
    }

    /// Names of the tensors that begin with `prefix`, without it.
    fn names(&self, prefix: &str) -> Vec<String> {
        self.file().names().into_iter().filter_map(|name| name.strip_prefix(prefix).map(str::to_owned)).collect()
    }
}

fn assert_close(what: &str, ours: &[f32], keras: &[f32]) {
    assert_eq!(ours.len(), keras.len(), "{what}: number of values");
    let scale = keras.iter().fold(0.0_f32, |largest, value| largest.max(value.abs())).max(1e-6);
    for (index, (ours, keras)) in ours.iter().zip(keras).enumerate() {
        let difference = (ours - keras).abs() / scale;
        assert!(difference <= TOLERANCE, "{what}[{index}]: {ours} against {keras}, {difference:e} of the largest");
    }
}

fn check(case: &str, operations: Operations) {
    let golden = Golden::read();
    let classes: usize = golden.text("classes").parse().unwrap();
    let config: NetworkConfig = serde_json::from_str(&golden.text(&format!("{case}/network"))).unwrap();
    let rule: OptimizerConfig = serde_json::from_str(&golden.text(&format!("{case}/optimizer"))).unwrap();
    let first = golden.tensor(&format!("{case}/step1/pixels"));
    let resolved = config.resolve(first.shape[1], first.shape[2], classes).unwrap();
    let initial = format!("{case}/initial/");
    let weights: Weights = golden
        .names(&initial)
        .into_iter()
        .map(|name| (name.clone(), golden.tensor(&(initial.clone() + &name))))
        .collect();
    let mut network = Network::new(resolved.clone(), &weights, &Device::flex()).unwrap().with_operations(operations);
    let mut optimizer = Optimizer::new(&rule, 0.0, 0.0, &network);
    for step in 1..=3 {
        train_step(&golden, &format!("{case}/step{step}"), &mut network, &mut optimizer, rule.learning_rate());
    }
    check_inference(&golden, case, &resolved, &network.weights(), first.data);
}

fn train_step(golden: &Golden, place: &str, network: &mut Network, optimizer: &mut Optimizer, learning_rate: f64) {
    let tensor = |name: &str| golden.tensor(&format!("{place}/{name}"));
    let labels = golden.labels(&format!("{place}/labels"));
    let classes = network.resolved().classes;
    let mut targets = vec![0.0; labels.len() * classes];
    for (row, &label) in targets.chunks_exact_mut(classes).zip(&labels) {
        row[label] = 1.0;
    }
    let forward = network.forward(tensor("pixels").data, targets, tensor("sample_weights").data, 0);
    let loss = values_of(forward.loss.clone().inner());
    let relative = (loss[0] - tensor("loss").data[0]).abs() / tensor("loss").data[0];
    assert!(relative <= TOLERANCE, "{place}/loss: {loss:?}, off by {relative:e}");
    assert_close(&format!("{place}/predictions"), &values_of(forward.probabilities), &tensor("predictions").data);
    let gradients = network.gradients(&forward.loss);
    let recorded = golden.names(&format!("{place}/gradient/"));
    let trainable = network.specs().iter().filter(|spec| spec.is_trainable()).count();
    assert_eq!(recorded.len(), if place.contains("sgd") { 0 } else { trainable }, "{place}: recorded gradients");
    for (spec, gradient) in network.specs().iter().zip(&gradients) {
        if recorded.contains(&spec.name) {
            let gradient = gradient.clone().expect("a trainable parameter has a gradient");
            let name = format!("gradient/{}", spec.name);
            assert_close(&format!("{place}/{name}"), &values_of(gradient), &tensor(&name).data);
        }
    }
    optimizer.update(network, gradients, learning_rate);
    let weights = network.weights();
    for name in golden.names(&format!("{place}/updated/")) {
        let ours = &weights.get(&name).unwrap().data;
        assert_close(&format!("{place}/updated/{name}"), ours, &tensor(&format!("updated/{name}")).data);
    }
}

/// The inference plan gives what Keras gives with `training=False`.
fn check_inference(golden: &Golden, case: &str, network: &ResolvedNetwork, weights: &Weights, pixels: Vec<f32>) {
    let plan = Plan::new(network, weights).unwrap();
    assert_close(
        &format!("{case}/inference"),
        &plan.probabilities(&pixels),
        &golden.tensor(&format!("{case}/inference")).data,
    );
}

#[test]
fn the_papers_network_with_adam() {
    check("paper", Operations::Kernels);
}

#[test]
fn same_padding_and_average_pooling() {
    check("same_average", Operations::Kernels);
}

#[test]
fn sgd_with_momentum() {
    check("sgd_momentum", Operations::Kernels);
}

#[test]
fn sgd_with_nesterov_momentum() {
    check("sgd_nesterov", Operations::Kernels);
}

/// What runs on devices without our kernels.
#[test]
fn burns_own_operations() {
    for case in ["paper", "same_average", "sgd_nesterov"] {
        check(case, Operations::Stock);
    }
}
