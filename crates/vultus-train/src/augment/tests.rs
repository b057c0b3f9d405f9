use super::*;

fn face() -> GrayImage {
    GrayImage::from_fn(48, 48, |x, y| Luma([(60 + x * 2 + (y * 7 + x * x) % 40) as u8]))
}

fn only(change: impl FnOnce(&mut AugmentConfig)) -> AugmentConfig {
    let mut config = AugmentConfig::default();
    change(&mut config);
    config
}

fn mean(face: &GrayImage) -> f64 {
    face.iter().map(|&value| f64::from(value)).sum::<f64>() / face.len() as f64
}

#[test]
fn nothing_changes_without_strength() {
    for index in 0..20 {
        assert_eq!(AugmentConfig::default().apply(&face(), 1, 3, index), face());
    }
}

#[test]
fn a_view_depends_on_seed_epoch_and_index_alone() {
    let config = AugmentConfig { rotation: 0.3, noise: 0.2, erasing: 0.5, brightness: 0.3, ..AugmentConfig::default() };
    let view = |seed, epoch, index| config.apply(&face(), seed, epoch, index);
    assert_eq!(view(1, 2, 3), view(1, 2, 3));
    for other in [view(2, 2, 3), view(1, 3, 3), view(1, 2, 4)] {
        assert_ne!(view(1, 2, 3), other);
    }
}

#[test]
fn flips_alternate_from_epoch_to_epoch() {
    let mirrored = imageops::flip_horizontal(&face());
    let all = only(|config| config.flip = 1.0);
    let mut in_first = 0;
    for index in 0..400 {
        let views: Vec<GrayImage> = (0..4).map(|epoch| all.apply(&face(), 1, epoch, index)).collect();
        assert!(views[0] == face() || views[0] == mirrored);
        assert!(views[0] != views[1] && views[0] == views[2] && views[1] == views[3]);
        in_first += usize::from(views[0] == mirrored);
    }
    assert!((150..250).contains(&in_first), "{in_first}");
    let half = only(|config| config.flip = 0.5);
    let never = (0..400).filter(|&index| (0..2).all(|epoch| half.apply(&face(), 1, epoch, index) == face())).count();
    assert!((150..250).contains(&never), "{never}");
}

#[test]
fn each_change_does_what_its_name_says() {
    let original = face();
    let views =
        |config: &AugmentConfig| -> Vec<GrayImage> { (0..60).map(|i| config.apply(&original, 1, 0, i)).collect() };
    let means = |config: &AugmentConfig| -> Vec<f64> { views(config).iter().map(mean).collect() };
    let spread = |values: &[f64]| {
        values.iter().copied().fold(f64::MIN, f64::max) - values.iter().copied().fold(f64::MAX, f64::min)
    };

    // Grey levels: their mean moves by at most what is documented.
    let bright = means(&only(|config| config.brightness = 0.25));
    assert!(bright.iter().all(|value| (value - mean(&original)).abs() < 33.0) && spread(&bright) > 40.0, "{bright:?}");
    let contrast = means(&only(|config| config.contrast = 0.5));
    assert!(spread(&contrast) < 12.0, "{contrast:?}");
    let deviation = |face: &GrayImage| {
        let mean = mean(face);
        (face.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / face.len() as f64).sqrt()
    };
    let deviations: Vec<f64> = views(&only(|config| config.contrast = 0.5)).iter().map(deviation).collect();
    assert!(spread(&deviations) > 0.6 * deviation(&original), "{deviations:?}");
    assert!(spread(&means(&only(|config| config.gamma = 0.5))) > 30.0);

    // Blur takes roughness away, noise adds it; neither moves the mean.
    let roughness = |face: &GrayImage| {
        let rows = face.as_raw().chunks_exact(48);
        rows.flat_map(|row| row.windows(2)).map(|pair| f64::from(pair[0].abs_diff(pair[1]))).sum::<f64>()
    };
    let blurred = views(&only(|config| config.blur = 1.0));
    assert!(blurred.iter().all(|view| roughness(view) <= roughness(&original)));
    assert!(blurred.iter().any(|view| roughness(view) < 0.7 * roughness(&original)));
    let noisy = views(&only(|config| config.noise = 0.5));
    assert!(noisy.iter().filter(|view| roughness(view) > roughness(&original)).count() > 55);

    // An erased rectangle has the documented size, and happens as often as asked for.
    let erased = views(&only(|config| config.erasing = 0.5));
    let changed = |view: &GrayImage| view.iter().zip(original.iter()).filter(|(a, b)| a != b).count();
    let counts: Vec<usize> = erased.iter().map(changed).filter(|&count| count > 0).collect();
    assert!((15..45).contains(&counts.len()), "{counts:?}");
    assert!(counts.iter().all(|count| (30..800).contains(count)), "{counts:?}");

    // Geometry keeps grey levels, and moves pixels.
    for config in [
        only(|config| config.shift = 0.3),
        only(|config| config.crop = 0.5),
        only(|config| config.rotation = 0.3),
        only(|config| config.affine = 0.5),
    ] {
        let views = views(&config);
        let (low, high) = (original.iter().min().unwrap(), original.iter().max().unwrap());
        assert!(views.iter().flat_map(|view| view.iter()).all(|value| (low..=high).contains(&value)));
        assert!(views.iter().filter(|view| **view != original).count() > 50, "{config:?}");
    }
}

#[test]
fn pictures_of_any_size_survive_every_change_at_full_strength() {
    let all = AugmentConfig {
        flip: 1.0,
        shift: 1.0,
        crop: 1.0,
        rotation: 1.0,
        affine: 1.0,
        brightness: 1.0,
        contrast: 1.0,
        gamma: 1.0,
        blur: 1.0,
        noise: 1.0,
        erasing: 1.0,
        mixup: 1.0,
        cutmix: 1.0,
    };
    for (width, height) in [(1, 1), (1, 9), (3, 2), (48, 48)] {
        let picture = GrayImage::from_fn(width, height, |x, y| Luma([(x * 50 + y * 9) as u8]));
        for index in 0..20 {
            assert_eq!(all.apply(&picture, 7, 1, index).dimensions(), (width, height));
            Mixing::draw(&all, 7, 1, index, width as usize, height as usize);
        }
    }
}
