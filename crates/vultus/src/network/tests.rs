//! What descriptions resolve to, and how they are refused.

use super::*;

fn paper() -> NetworkConfig {
    let conv = |filters| {
        LayerConfig::Conv(ConvConfig {
            filters,
            kernel: 3,
            stride: 1,
            padding: Padding::Valid,
            bias: true,
            activation: Activation::Relu,
            l2: 0.01,
        })
    };
    let norm = || LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.99, epsilon: 1e-3 });
    let pool = || LayerConfig::MaxPool(PoolConfig { size: 2 });
    NetworkConfig {
        layers: vec![
            conv(64),
            norm(),
            pool(),
            conv(128),
            norm(),
            pool(),
            LayerConfig::Flatten(FlattenConfig {}),
            LayerConfig::Dense(DenseConfig { units: 128, activation: Activation::Relu, l2: 0.01 }),
            norm(),
        ],
    }
}

#[test]
fn counts_of_the_papers_network() {
    let network = paper().resolve(48, 48, 6).unwrap();
    // 9*64+64 | 4*64 | 9*64*128+128 | 4*128 | 10*10*128*128+128 | 4*128 | 128*6+6
    let counts: Vec<usize> = network.layers.iter().map(ResolvedLayer::parameter_count).collect();
    assert_eq!(counts, [640, 256, 0, 73_856, 512, 0, 0, 1_638_528, 512, 774]);
    assert_eq!(network.multiply_adds(), 46 * 46 * 64 * 9 + 21 * 21 * 128 * 64 * 9 + 12_800 * 128 + 128 * 6);
    assert_eq!(network.layers[6].output, FeatureShape::Flat { features: 12_800 });
    let kernel = &network.layers[3].parameters[0];
    let role = ParameterRole::Kernel { fan_in: 9 * 64, fan_out: 9 * 128 };
    assert_eq!((&kernel.shape[..], kernel.role), (&[3, 3, 64, 128][..], role));
}

#[test]
fn errors_name_the_layer_and_the_key() {
    let mut config = paper();
    config.layers.remove(6);
    let message = config.resolve(48, 48, 6).unwrap_err().to_string();
    assert!(message.contains("network.layers.6 (dense)") && message.contains("flatten"), "{message}");
    let message = paper().resolve(4, 4, 6).unwrap_err().to_string();
    assert!(message.contains("network.layers.3 (conv)"), "{message}");
    assert_eq!(paper().resolve(48, 48, 1), Err(NetworkError::Classes(1)));
    for (height, width) in [(0, 48), (48, 1 << 31)] {
        assert_eq!(paper().resolve(height, width, 7), Err(NetworkError::Pictures { width, height }));
    }
}

#[test]
fn json_round_trip_and_unknown_keys() {
    let text = serde_json::to_string(&paper()).unwrap();
    assert_eq!(serde_json::from_str::<NetworkConfig>(&text).unwrap(), paper());
    let error = serde_json::from_str::<NetworkConfig>(r#"{"layers":[{"type":"dropout","rate":0.1,"rat":1}]}"#);
    assert!(error.unwrap_err().to_string().contains("rat"));
}

fn conv(filters: usize, kernel: usize, stride: usize) -> LayerConfig {
    LayerConfig::Conv(ConvConfig {
        filters,
        kernel,
        stride,
        padding: Padding::Same,
        bias: false,
        activation: Activation::Linear,
        l2: 0.0,
    })
}

fn residual(layers: Vec<LayerConfig>, shortcut: Vec<LayerConfig>) -> LayerConfig {
    LayerConfig::Residual(ResidualConfig { activation: Activation::Relu, layers, shortcut })
}

/// A stem, an identity block, a block that halves the size, and the mean of each channel.
fn small_residual_network() -> NetworkConfig {
    let norm = || LayerConfig::BatchNorm(BatchNormConfig { momentum: 0.9, epsilon: 1e-5 });
    let layers = vec![
        conv(4, 3, 1),
        residual(vec![conv(4, 3, 1), norm()], vec![]),
        residual(vec![conv(8, 3, 2), norm(), conv(8, 3, 1)], vec![conv(8, 1, 2), norm()]),
        LayerConfig::GlobalAveragePool(GlobalAveragePoolConfig {}),
    ];
    NetworkConfig { layers }
}

#[test]
fn residual_layers_have_the_shapes_names_and_costs_of_their_branches() {
    let network = small_residual_network().resolve(9, 7, 3).unwrap();
    let planes = |channels, height, width| FeatureShape::Planes { channels, height, width };
    let outputs: Vec<FeatureShape> = network.layers.iter().map(|layer| layer.output).collect();
    let flat = |features| FeatureShape::Flat { features };
    assert_eq!(outputs, [planes(4, 9, 7), planes(4, 9, 7), planes(8, 5, 4), flat(8), flat(3)]);
    let names: Vec<&str> = network.parameters().map(|spec| spec.name.as_str()).collect();
    let norm = |place: &str| {
        ["gamma", "beta", "running_mean", "running_variance"].map(|name| format!("layers.{place}.{name}")).to_vec()
    };
    let mut expected = vec!["layers.0.weight".to_owned(), "layers.1.layers.0.weight".to_owned()];
    expected.extend(norm("1.layers.1"));
    expected.push("layers.2.layers.0.weight".to_owned());
    expected.extend(norm("2.layers.1"));
    expected.extend(["layers.2.layers.2.weight".to_owned(), "layers.2.shortcut.0.weight".to_owned()]);
    expected.extend(norm("2.shortcut.1"));
    expected.extend(["layers.4.weight".to_owned(), "layers.4.bias".to_owned()]);
    assert_eq!(names, expected);

    let counts: Vec<usize> = network.layers.iter().map(ResolvedLayer::parameter_count).collect();
    assert_eq!(counts, [36, 4 * 36 + 16, 8 * 36 + 32 + 8 * 72 + 32 + 32, 0, 27]);
    assert_eq!(network.parameter_count(), counts.iter().sum::<usize>());
    assert_eq!(network.trainable_count(), network.parameter_count() - 2 * (4 + 8 + 8));
    let costs: Vec<u64> = network.layers.iter().map(|layer| layer.multiply_adds).collect();
    assert_eq!(costs, [63 * 36, 63 * 4 * 36, 20 * 8 * (36 + 72 + 4), 0, 24]);
    assert_eq!(network.multiply_adds(), costs.iter().sum::<u64>());
    assert_eq!(network.every_layer().count(), 5 + 2 + 5);
}

#[test]
fn residual_layers_may_stand_inside_one_another() {
    let inner = residual(vec![conv(4, 1, 1)], vec![]);
    let network = NetworkConfig { layers: vec![conv(4, 3, 1), residual(vec![inner], vec![conv(4, 1, 1)])] };
    let network = NetworkConfig { layers: [network.layers, vec![LayerConfig::Flatten(FlattenConfig {})]].concat() };
    let resolved = network.resolve(4, 4, 2).unwrap();
    let names: Vec<&str> = resolved.parameters().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names[1..3], ["layers.1.layers.0.layers.0.weight", "layers.1.shortcut.0.weight"]);
}

#[test]
fn errors_inside_residual_layers_name_the_place_and_the_key() {
    let refused = |layer: LayerConfig| {
        let config = NetworkConfig { layers: vec![conv(4, 3, 1), layer] };
        config.resolve(8, 8, 2).unwrap_err().to_string()
    };
    let valid = LayerConfig::Conv(ConvConfig {
        filters: 4,
        kernel: 9,
        stride: 1,
        padding: Padding::Valid,
        bias: true,
        activation: Activation::Linear,
        l2: 0.0,
    });
    let dense = LayerConfig::Dense(DenseConfig { units: 4, activation: Activation::Linear, l2: 0.0 });
    let flatten = || LayerConfig::Flatten(FlattenConfig {});
    let mean = || LayerConfig::GlobalAveragePool(GlobalAveragePoolConfig {});
    for (layer, parts) in [
        (residual(vec![conv(4, 1, 1), valid], vec![]), ["network.layers.1.layers.1 (conv)", "larger than"]),
        (residual(vec![conv(4, 3, 1)], vec![conv(4, 1, 9)]), ["network.layers.1.shortcut.0.stride is 9", "1 to 8"]),
        (residual(vec![conv(8, 3, 2)], vec![]), ["network.layers.1 (residual)", "8 x 4 x 4"]),
        (residual(vec![conv(8, 3, 2)], vec![]), ["layers.1 (residual)", "4 x 8 x 8 of its shortcut"]),
        (residual(vec![], vec![conv(4, 1, 1)]), ["network.layers.1.layers is []", "at least one"]),
        (residual(vec![dense], vec![]), ["network.layers.1.layers.0 (dense)", "keep planes"]),
        (residual(vec![flatten()], vec![flatten()]), ["network.layers.1.layers.0 (flatten)", "keep planes"]),
        (residual(vec![conv(4, 1, 1)], vec![mean()]), ["network.layers.1.shortcut.0 (global_average_pool)", "planes"]),
    ] {
        let message = refused(layer);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    for layer in [residual(vec![conv(4, 1, 1)], vec![]), mean()] {
        let kind = layer.kind();
        let message = NetworkConfig { layers: vec![flatten(), layer] }.resolve(8, 8, 2).unwrap_err().to_string();
        assert!(message.contains(&format!("network.layers.1 ({kind})")) && message.contains("flatten"), "{message}");
    }
    let message = NetworkConfig { layers: vec![conv(4, 3, 1)] }.resolve(8, 8, 2).unwrap_err().to_string();
    assert!(message.contains("network.layers.1 (dense)") && message.contains("global_average_pool"), "{message}");
}

#[test]
fn residual_layers_come_back_from_json_and_default_to_the_identity() {
    let text = serde_json::to_string(&small_residual_network()).unwrap();
    assert_eq!(serde_json::from_str::<NetworkConfig>(&text).unwrap(), small_residual_network());
    let text = r#"{"layers":[{"type":"residual","layers":[{"type":"conv","filters":1,"kernel":1}]}]}"#;
    let config: NetworkConfig = serde_json::from_str(text).unwrap();
    let LayerConfig::Residual(block) = &config.layers[0] else { panic!("{config:?}") };
    assert_eq!((block.shortcut.len(), block.activation), (0, Activation::Linear));
    assert!(matches!(&block.layers[0], LayerConfig::Conv(conv) if conv.bias));
    let error = serde_json::from_str::<NetworkConfig>(&text.replace("kernel", "kernels")).unwrap_err().to_string();
    assert!(error.contains("kernels"), "{error}");
}

/// Checkpoints and journals that were written before a convolution could do without a bias are still right.
#[test]
fn an_identity_says_only_that_a_bias_is_missing() {
    assert!(serde_json::to_string(&paper()).unwrap().contains("bias"));
    assert!(!paper().identity().to_string().contains("bias"));
    let identity = small_residual_network().identity().to_string();
    assert_eq!(identity.matches(r#""bias":false"#).count(), 5, "{identity}");
}

#[test]
fn depthwise_and_squeezing_layers_have_their_shapes_and_costs() {
    let text = r#"{"layers":[
        {"type":"conv","filters":12,"kernel":1},
        {"type":"depthwise_conv","kernel":3,"stride":2,"padding":"same"},
        {"type":"depthwise_conv","kernel":5,"bias":false,"activation":"relu","l2":0.5},
        {"type":"squeeze_excitation"},
        {"type":"residual","layers":[{"type":"squeeze_excitation","ratio":99}]},
        {"type":"flatten"}]}"#;
    let config: NetworkConfig = serde_json::from_str(text).unwrap();
    let network = config.resolve(20, 15, 3).unwrap();
    let planes = |height, width| FeatureShape::Planes { channels: 12, height, width };
    let outputs: Vec<FeatureShape> = network.layers.iter().map(|layer| layer.output).collect();
    assert_eq!(outputs[..5], [planes(20, 15), planes(10, 8), planes(6, 4), planes(6, 4), planes(6, 4)]);
    let counts: Vec<usize> = network.layers.iter().map(ResolvedLayer::parameter_count).collect();
    assert_eq!(counts[1..5], [12 * 9 + 12, 12 * 25, 2 * 12 * 3 + 3 + 12, 2 * 12 + 1 + 12]);
    let costs: Vec<u64> = network.layers.iter().map(|layer| layer.multiply_adds).collect();
    assert_eq!(costs[1..5], [80 * 12 * 9, 24 * 12 * 25, 2 * 12 * 3, 2 * 12]);
    assert_eq!((network.layers[1].config.l2(), network.layers[2].config.l2()), (0.0, 0.5));
    let details: Vec<String> = network.layers[1..4].iter().map(ResolvedLayer::details).collect();
    assert_eq!(details, ["3x3, stride 2, same", "5x5, valid, no bias, relu", "3 hidden units"]);
    let specs: Vec<(&str, &[usize])> =
        network.parameters().skip(2).map(|spec| (spec.name.as_str(), &spec.shape[..])).collect();
    assert_eq!(
        specs[..7],
        [
            ("layers.1.weight", &[3, 3, 12][..]),
            ("layers.1.bias", &[12]),
            ("layers.2.weight", &[5, 5, 12]),
            ("layers.3.squeeze_weight", &[12, 3]),
            ("layers.3.squeeze_bias", &[3]),
            ("layers.3.excitation_weight", &[3, 12]),
            ("layers.3.excitation_bias", &[12]),
        ]
    );
}

#[test]
fn depthwise_and_squeezing_layers_are_refused_by_key_and_place() {
    let refused = |layer: &str, before: &str| {
        let text = format!(r#"{{"layers":[{before}{layer}]}}"#);
        serde_json::from_str::<NetworkConfig>(&text).unwrap().resolve(8, 8, 2).unwrap_err().to_string()
    };
    let flatten = r#"{"type":"flatten"},"#;
    for (layer, before, parts) in [
        (r#"{"type":"depthwise_conv","kernel":4}"#, "", ["layers.0.kernel is 4", "odd number"]),
        (r#"{"type":"depthwise_conv","kernel":0,"padding":"same"}"#, "", ["layers.0.kernel is 0", "odd number"]),
        (r#"{"type":"depthwise_conv","kernel":33}"#, "", ["layers.0.kernel is 33", "1 to 31"]),
        (r#"{"type":"depthwise_conv","kernel":3,"stride":9}"#, "", ["layers.0.stride is 9", "1 to 8"]),
        (r#"{"type":"depthwise_conv","kernel":3,"l2":-1.0}"#, "", ["layers.0.l2 is -1", "0 or more"]),
        (r#"{"type":"depthwise_conv","kernel":9}"#, "", ["layers.0 (depthwise_conv)", "larger than the picture"]),
        (r#"{"type":"depthwise_conv","kernel":1}"#, flatten, ["layers.1 (depthwise_conv)", "before flatten"]),
        (r#"{"type":"squeeze_excitation","ratio":0}"#, "", ["layers.0.ratio is 0", "1 to 4096"]),
        (r#"{"type":"squeeze_excitation"}"#, flatten, ["layers.1 (squeeze_excitation)", "before flatten"]),
    ] {
        let message = refused(layer, before);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let filters = r#"{"layers":[{"type":"depthwise_conv","kernel":3,"filters":8}]}"#;
    assert!(serde_json::from_str::<NetworkConfig>(filters).unwrap_err().to_string().contains("filters"));
}

#[test]
fn a_table_has_every_layer_by_its_place_and_adds_up() {
    let network = small_residual_network().resolve(9, 7, 3).unwrap();
    let rows = network.table();
    let places: Vec<&str> = rows.iter().map(|row| row.place.as_str()).collect();
    let first = ["0", "1", "1.layers.0", "1.layers.1", "2", "2.layers.0", "2.layers.1", "2.layers.2"];
    assert_eq!(places[..8], first);
    assert_eq!(places[8..], ["2.shortcut.0", "2.shortcut.1", "3", "4"]);
    assert_eq!(rows.iter().map(|row| row.parameters).sum::<usize>(), network.parameter_count());
    assert_eq!(rows.iter().map(|row| row.multiply_adds).sum::<u64>(), network.multiply_adds());
    assert_eq!((rows[4].kind, rows[4].parameters, rows[4].multiply_adds), ("residual", 0, 0));
    assert_eq!((rows[7].kind, rows[7].multiply_adds), ("conv", 20 * 8 * 72));
}

/// What journals and checkpoints of older networks say about themselves, letter by letter.
#[test]
fn new_layers_leave_the_identity_of_older_networks_as_it_was() {
    let text = r#"{"layers":[
        {"type":"conv","filters":4,"kernel":3,"padding":"same"},
        {"type":"residual","layers":[{"type":"conv","filters":4,"kernel":1,"bias":false}]},
        {"type":"global_average_pool"}]}"#;
    let conv = r#"{"type":"conv","filters":4,"kernel":3,"stride":1,"padding":"same","activation":"linear","l2":0.0}"#;
    let inner = r#"{"type":"conv","filters":4,"kernel":1,"stride":1,"padding":"valid","bias":false,"activation":"linear","l2":0.0}"#;
    let residual = format!(r#"{{"type":"residual","activation":"linear","layers":[{inner}],"shortcut":[]}}"#);
    let expected = format!(r#"{{"layers":[{conv},{residual},{{"type":"global_average_pool"}}]}}"#);
    assert_eq!(serde_json::from_str::<NetworkConfig>(text).unwrap().identity().to_string(), expected);
}

#[test]
fn ranges_hold_with_the_32_bits_that_are_computed_with() {
    let message = |layer: &str| {
        let network: NetworkConfig =
            serde_json::from_str(&format!(r#"{{"layers":[{layer},{{"type":"flatten"}}]}}"#)).unwrap();
        network.resolve(48, 48, 2).unwrap_err().to_string()
    };
    for (layer, key) in [
        (r#"{"type":"dropout","rate":0.99999999}"#, "rate"),
        (r#"{"type":"batch_norm","momentum":0.99999999}"#, "momentum"),
        (r#"{"type":"batch_norm","epsilon":1e-50}"#, "epsilon"),
        (r#"{"type":"conv","filters":1,"kernel":1,"l2":1e39}"#, "l2"),
    ] {
        let message = message(layer);
        assert!(message.contains(&format!("network.layers.0.{key} is")), "{message}");
    }
}

/// No parameters to speak of, and hundreds of gigabytes between two layers.
#[test]
fn a_network_that_no_memory_would_hold_is_refused_with_its_layer() {
    let mean = || LayerConfig::GlobalAveragePool(GlobalAveragePoolConfig {});
    let refused = |layers: Vec<LayerConfig>, size: usize| {
        NetworkConfig { layers }.resolve(size, size, 2).map_err(|error| error.to_string())
    };
    let message = refused(vec![conv(4096, 1, 1), mean()], 2048).unwrap_err();
    assert!(message.starts_with("network.layers.0 (conv): ") && message.contains("17179869184 values"), "{message}");
    // Each layer inside the bound, and all together beyond it.
    let nested = (0..9).fold(vec![conv(16, 1, 1)], |inside, _| vec![conv(16, 1, 1), residual(inside, vec![])]);
    let message = refused([nested, vec![mean()]].concat(), 1024).unwrap_err();
    assert!(message.contains(".layers.") && message.contains("more than the 134217728"), "{message}");
    refused(vec![conv(64, 3, 8), mean()], 2048).unwrap();
    refused(vec![conv(64, 3, 1), conv(64, 3, 1), mean()], 224).unwrap();
}
