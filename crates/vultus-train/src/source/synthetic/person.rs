//! Everything about a picture that says nothing about the expression: the person, the pose, the light, the camera.
//!
//! In: the difficulty and the noise strength. Out: a [`Person`] and a [`Scene`], drawn alike for every class, so that
//! a classifier has to look past them.

use super::dice::Dice;

/// How the hair is worn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hair {
    /// None.
    Bald,
    /// A cap of hair above the forehead.
    Short,
    /// Hair that falls beside the face.
    Long,
    /// Long hair with a fringe over the forehead.
    Fringe,
}

/// The face at rest. Lengths are in half heights of the head; greys are 0 (black) to 1 (white).
#[derive(Clone, Copy, Debug)]
pub struct Person {
    /// Half width of the head.
    pub head_width: f32,
    /// Width of the jaw as a part of the head's.
    pub jaw_width: f32,
    /// Half distance of the eyes' centres.
    pub eye_spacing: f32,
    /// Half width of an eye.
    pub eye_width: f32,
    /// How far the eyes stand open at rest, around 1.
    pub eye_openness: f32,
    /// How much the outer corners stand higher.
    pub eye_tilt: f32,
    /// Radius of the iris.
    pub iris: f32,
    /// Grey of the iris.
    pub iris_grey: f32,
    /// Height of the brows above the eyes.
    pub brow_distance: f32,
    /// Thickness of the brows.
    pub brow_thickness: f32,
    /// Slant of the brows at rest, as in the expression.
    pub brow_slant: f32,
    /// Half width of the nose.
    pub nose_width: f32,
    /// Height of the nose's tip.
    pub nose_tip: f32,
    /// Height of the mouth.
    pub mouth_height: f32,
    /// Half width of the mouth.
    pub mouth_width: f32,
    /// Curve of the mouth at rest, as in the expression.
    pub mouth_curve: f32,
    /// Thickness of the lips.
    pub lips: f32,
    /// Grey of the skin.
    pub skin: f32,
    /// Grey of hair and brows.
    pub hair_grey: f32,
    /// How the hair is worn.
    pub hair: Hair,
    /// Darkness of a beard, 0 for none.
    pub beard: f32,
    /// Depth of the lines of age, 0..1.
    pub age: f32,
    /// Whether glasses are worn.
    pub glasses: bool,
}

impl Person {
    /// One person.
    pub fn draw(difficulty: f32, dice: &mut Dice) -> Self {
        let variety = 0.5 + difficulty;
        let skin = dice.uniform(0.34, 0.88);
        let hair_grey = if dice.chance(0.2) { dice.uniform(0.5, 0.9) } else { dice.uniform(0.04, 0.4) };
        let hair = [Hair::Bald, Hair::Short, Hair::Short, Hair::Long, Hair::Long, Hair::Fringe][dice.pick(6)];
        Self {
            head_width: dice.uniform(0.68, 0.84),
            jaw_width: dice.uniform(0.62, 0.9),
            eye_spacing: dice.uniform(0.29, 0.36),
            eye_width: dice.uniform(0.165, 0.215),
            eye_openness: dice.normal(1.0, 0.1 * variety),
            eye_tilt: dice.normal(0.01, 0.02 * variety),
            iris: dice.uniform(0.085, 0.105),
            iris_grey: dice.uniform(0.05, 0.4),
            brow_distance: dice.normal(0.24, 0.018 * variety),
            brow_thickness: dice.uniform(0.04, 0.095),
            brow_slant: dice.normal(0.0, 0.1 * variety),
            nose_width: dice.uniform(0.1, 0.17),
            nose_tip: dice.uniform(0.2, 0.28),
            mouth_height: dice.uniform(0.52, 0.6),
            mouth_width: dice.uniform(0.24, 0.32),
            mouth_curve: dice.normal(0.0, 0.1 * variety),
            lips: dice.uniform(0.035, 0.085),
            skin,
            hair_grey,
            hair,
            beard: if dice.chance(0.15) { dice.uniform(0.25, 0.7) } else { 0.0 },
            age: dice.uniform(0.0, 1.0),
            glasses: dice.chance(0.05 + 0.14 * difficulty),
        }
    }
}

/// Something in front of the face.
#[derive(Clone, Copy, Debug)]
pub struct Occluder {
    /// Centre on the picture, in picture sides from the upper left corner.
    pub centre: (f32, f32),
    /// Half length and half width, in picture sides.
    pub half_size: (f32, f32),
    /// Angle, radians.
    pub angle: f32,
    /// Grey, 0..1.
    pub grey: f32,
}

/// Pose, light and camera.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Turn to the side, radians.
    pub yaw: f32,
    /// Nod, radians; above 0 is down.
    pub pitch: f32,
    /// Tilt in the picture's plane, radians.
    pub roll: f32,
    /// Centre of the head, in picture sides.
    pub centre: (f32, f32),
    /// Half height of the head, in picture sides.
    pub scale: f32,
    /// Direction of the gaze, in iris radii to the right and down.
    pub gaze: (f32, f32),
    /// Direction of the light in the picture's plane, radians.
    pub light_angle: f32,
    /// Darkness of the side away from the light, 0..1.
    pub shadow: f32,
    /// Greys of the background at two opposite ends.
    pub background: (f32, f32),
    /// Direction of the background's gradient, radians.
    pub background_angle: f32,
    /// A dark or bright patch of the background: centre, radius (picture sides), grey.
    pub patch: (f32, f32, f32, f32),
    /// What covers a part of the face, if anything.
    pub occluder: Option<Occluder>,
    /// Contrast around middle grey, 1 leaves it.
    pub contrast: f32,
    /// Added brightness, in parts of the range.
    pub brightness: f32,
    /// Strength of the lens blur, 0 (none) to 1.
    pub blur: f32,
    /// Standard deviation of the sensor noise, in parts of the range.
    pub grain: f32,
}

impl Scene {
    /// One scene; `noise` (0..1) rules blur and grain.
    pub fn draw(difficulty: f32, noise: f32, dice: &mut Dice) -> Self {
        let loose = 0.3 + 1.2 * difficulty;
        let occluder = dice.chance(0.16 * difficulty).then(|| Occluder {
            centre: (dice.uniform(0.1, 0.9), dice.uniform(0.35, 1.0)),
            half_size: (dice.uniform(0.12, 0.35), dice.uniform(0.04, 0.11)),
            angle: dice.uniform(-1.6, 1.6),
            grey: dice.uniform(0.05, 0.9),
        });
        Self {
            yaw: dice.normal(0.0, 0.2 * loose),
            pitch: dice.normal(0.0, 0.11 * loose),
            roll: dice.normal(0.0, 0.09 * loose),
            centre: (0.5 + dice.normal(0.0, 0.025 * loose), 0.5 + dice.normal(0.0, 0.025 * loose)),
            scale: dice.normal(0.53, 0.028 * loose).clamp(0.36, 0.62),
            gaze: (dice.normal(0.0, 0.3), dice.normal(0.0, 0.15)),
            light_angle: dice.uniform(0.0, std::f32::consts::TAU),
            shadow: dice.uniform(0.1, 0.35 + 0.4 * difficulty),
            background: (dice.uniform(0.0, 1.0), dice.uniform(0.0, 1.0)),
            background_angle: dice.uniform(0.0, std::f32::consts::TAU),
            patch: (dice.uniform(0.0, 1.0), dice.uniform(0.0, 1.0), dice.uniform(0.05, 0.3), dice.uniform(0.0, 1.0)),
            occluder,
            contrast: dice.uniform(1.0 - 0.45 * difficulty, 1.15),
            brightness: dice.normal(0.0, 0.08 * loose),
            blur: dice.uniform(0.0, noise),
            grain: dice.uniform(0.0, 0.09 * noise),
        }
    }
}
