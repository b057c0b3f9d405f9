//! The learning rate as a function of the step.

use std::f64::consts::PI;

use crate::config::{ScheduleConfig, ScheduleKind};

/// Part of the peak at which `one_cycle` starts.
const ONE_CYCLE_START: f64 = 1.0 / 25.0;

/// Share of the steps over which `one_cycle` rises when `warmup` is 0.
const ONE_CYCLE_RISE: f64 = 0.3;

/// Learning rate of `step` (from 0) out of `steps`, for the given `peak`.
pub fn learning_rate(config: &ScheduleConfig, peak: f64, step: u64, steps: u64) -> f64 {
    let position = (step as f64 + 1.0) / steps.max(1) as f64;
    let part = match config.kind {
        ScheduleKind::OneCycle => {
            let rise = if config.warmup > 0.0 { config.warmup } else { ONE_CYCLE_RISE };
            if position <= rise {
                along_cosine(ONE_CYCLE_START, 1.0, position / rise)
            } else {
                along_cosine(1.0, config.floor, progress(position, rise))
            }
        }
        _ if config.warmup > 0.0 && position <= config.warmup => position / config.warmup,
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Cosine => along_cosine(1.0, config.floor, progress(position, config.warmup)),
        ScheduleKind::Triangular => 1.0 + (config.floor - 1.0) * progress(position, config.warmup),
    };
    peak * part
}

/// How far `position` lies between `start` and 1.
fn progress(position: f64, start: f64) -> f64 {
    if start >= 1.0 { 1.0 } else { ((position - start) / (1.0 - start)).clamp(0.0, 1.0) }
}

/// From `from` to `to` along half a cosine; `at` runs from 0 to 1.
fn along_cosine(from: f64, to: f64, at: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * at).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(kind: ScheduleKind, warmup: f64, floor: f64) -> Vec<f64> {
        let config = ScheduleConfig { kind, warmup, floor };
        (0..100).map(|step| learning_rate(&config, 2.0, step, 100)).collect()
    }

    #[test]
    fn constant_stays_and_warms_up() {
        assert!(curve(ScheduleKind::Constant, 0.0, 0.0).iter().all(|&rate| rate == 2.0));
        let rates = curve(ScheduleKind::Constant, 0.1, 0.0);
        assert!((rates[4] - 1.0).abs() < 1e-12, "{}", rates[4]);
        assert_eq!(rates[10], 2.0);
    }

    #[test]
    fn what_only_warms_up_ends_at_the_peak() {
        for kind in [ScheduleKind::Constant, ScheduleKind::OneCycle, ScheduleKind::Cosine, ScheduleKind::Triangular] {
            let rates = curve(kind, 1.0, 0.0);
            assert!(rates.windows(2).all(|pair| pair[1] > pair[0]) && (rates[99] - 2.0).abs() < 1e-12, "{kind:?}");
        }
    }

    #[test]
    fn cosine_falls_to_the_floor() {
        let rates = curve(ScheduleKind::Cosine, 0.0, 0.1);
        assert!(rates.windows(2).all(|pair| pair[1] < pair[0]));
        assert!((rates[49] - 1.1).abs() < 1e-9, "{}", rates[49]);
        assert!((rates[99] - 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_triangle_rises_to_its_peak_and_falls_to_the_floor() {
        let rates = curve(ScheduleKind::Triangular, 0.25, 0.1);
        assert!((rates[24] - 2.0).abs() < 1e-12 && (rates[99] - 0.2).abs() < 1e-12, "{} {}", rates[24], rates[99]);
        assert!((rates[11] - 0.96).abs() < 1e-12, "{}", rates[11]);
        let steps: Vec<f64> = rates[24..].windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (step + 1.8 / 75.0).abs() < 1e-12));
    }

    #[test]
    fn one_cycle_rises_and_falls() {
        let rates = curve(ScheduleKind::OneCycle, 0.0, 0.0);
        let top = rates.iter().position(|&rate| rate == rates.iter().copied().fold(0.0, f64::max)).unwrap();
        assert_eq!(top, 29);
        assert!(rates[0] < 0.1 && rates[99] < 1e-12);
        assert!((rates[29] - 2.0).abs() < 1e-9);
    }
}
