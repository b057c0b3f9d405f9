//! What the muscles of a face do in each of the seven expressions.
//!
//! In: a class and the difficulty. Out: one [`Expression`], drawn from the distribution of its class. The distributions
//! overlap: weak expressions look like the neutral one, and a trace of another expression may be mixed in.

use super::dice::Dice;

/// The seven expressions, in alphabetical order.
pub const CLASSES: [&str; 7] = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"];

/// Movements away from a face at rest; 0 is rest and 1 a full movement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expression {
    /// Upper lids: above 0 widened, below 0 drooping.
    pub eyelids: f32,
    /// Lower lids and cheeks raised.
    pub squint: f32,
    /// Brows: above 0 raised, below 0 lowered.
    pub brow_height: f32,
    /// Brows: above 0 the inner ends up (worry), below 0 the inner ends down (anger).
    pub brow_slant: f32,
    /// Brows bent to an arch.
    pub brow_bend: f32,
    /// Mouth wider (above 0) or narrower.
    pub mouth_width: f32,
    /// Jaw dropped.
    pub jaw: f32,
    /// Corners of the mouth: above 0 up, below 0 down.
    pub mouth_curve: f32,
    /// Teeth shown, as part of the open mouth.
    pub teeth: f32,
    /// Upper lip raised.
    pub upper_lip: f32,
    /// Nose wrinkled.
    pub wrinkle: f32,
    /// Mouth rounded to an O.
    pub round: f32,
    /// Gaze and head lowered.
    pub downcast: f32,
}

impl Expression {
    /// Field by field, `combine(self, other)`.
    fn with(self, other: Self, mut combine: impl FnMut(f32, f32) -> f32) -> Self {
        Self {
            eyelids: combine(self.eyelids, other.eyelids),
            squint: combine(self.squint, other.squint),
            brow_height: combine(self.brow_height, other.brow_height),
            brow_slant: combine(self.brow_slant, other.brow_slant),
            brow_bend: combine(self.brow_bend, other.brow_bend),
            mouth_width: combine(self.mouth_width, other.mouth_width),
            jaw: combine(self.jaw, other.jaw),
            mouth_curve: combine(self.mouth_curve, other.mouth_curve),
            teeth: combine(self.teeth, other.teeth),
            upper_lip: combine(self.upper_lip, other.upper_lip),
            wrinkle: combine(self.wrinkle, other.wrinkle),
            round: combine(self.round, other.round),
            downcast: combine(self.downcast, other.downcast),
        }
    }

    /// One face of class number `class` (order of [`CLASSES`]); `difficulty` 0 is clear and strong, 1 weak and mixed.
    pub fn draw(class: usize, difficulty: f32, dice: &mut Dice) -> Self {
        let intensity = dice.uniform(1.0 - 0.6 * difficulty, 1.15 - 0.05 * difficulty);
        let variants = prototypes(class);
        let prototype = variants[dice.pick(variants.len())];
        let mixed = dice.chance(0.5 * difficulty);
        let strangers = prototypes(dice.pick(CLASSES.len()));
        let stranger = strangers[dice.pick(strangers.len())];
        let share = if mixed { dice.uniform(0.0, 0.7 * difficulty) } else { 0.0 };
        let spread = 0.05 + 0.18 * difficulty;
        let moved = prototype.with(stranger, |own, other| own * intensity + other * share + dice.normal(0.0, spread));
        Self {
            squint: moved.squint.clamp(0.0, 1.2),
            jaw: moved.jaw.clamp(0.0, 1.3),
            teeth: moved.teeth.clamp(0.0, 1.0),
            upper_lip: moved.upper_lip.clamp(0.0, 1.2),
            wrinkle: moved.wrinkle.clamp(0.0, 1.2),
            round: moved.round.clamp(0.0, 1.0),
            ..moved
        }
    }
}

/// The full-strength faces of a class: some expressions have more than one.
fn prototypes(class: usize) -> Vec<Expression> {
    let rest = Expression::default();
    match CLASSES.get(class).copied().unwrap_or("neutral") {
        "angry" => {
            let frown = Expression { eyelids: -0.1, squint: 0.35, brow_height: -0.75, brow_slant: -1.0, ..rest };
            vec![
                Expression { mouth_width: -0.25, mouth_curve: -0.45, ..frown },
                Expression { mouth_width: 0.1, jaw: 0.4, mouth_curve: -0.3, teeth: 1.0, eyelids: 0.2, ..frown },
            ]
        }
        "disgust" => {
            let sneer = Expression { eyelids: -0.5, squint: 0.8, brow_height: -0.5, brow_slant: -0.3, ..rest };
            let sneer = Expression { wrinkle: 1.0, upper_lip: 1.0, mouth_curve: -0.5, ..sneer };
            vec![sneer, Expression { jaw: 0.2, teeth: 0.8, upper_lip: 1.15, ..sneer }]
        }
        "fear" => {
            let dread = Expression { eyelids: 0.8, brow_height: 0.65, brow_slant: 0.85, brow_bend: -0.3, ..rest };
            vec![
                Expression { mouth_width: 0.3, jaw: 0.3, mouth_curve: -0.35, teeth: 0.6, ..dread },
                Expression { mouth_width: 0.1, jaw: 0.55, mouth_curve: -0.3, teeth: 0.2, ..dread },
            ]
        }
        "happy" => {
            let smile = Expression { squint: 0.6, brow_height: 0.15, mouth_width: 0.5, mouth_curve: 0.9, ..rest };
            vec![smile, Expression { jaw: 0.45, teeth: 0.9, mouth_curve: 1.0, ..smile }]
        }
        "sad" => {
            let grief = Expression { eyelids: -0.4, brow_height: 0.05, brow_slant: 0.9, mouth_curve: -0.85, ..rest };
            vec![
                Expression { mouth_width: -0.15, downcast: 0.7, ..grief },
                Expression { mouth_width: 0.1, downcast: 0.2, squint: 0.4, jaw: 0.1, ..grief },
            ]
        }
        "surprise" => {
            let start = Expression { eyelids: 0.85, brow_height: 1.0, brow_bend: 0.8, ..rest };
            vec![Expression { mouth_width: -0.35, jaw: 0.9, teeth: 0.1, round: 1.0, ..start }]
        }
        _ => vec![rest],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_but_the_neutral_one_moves_something() {
        for (class, name) in CLASSES.iter().enumerate() {
            let variants = prototypes(class);
            assert!(!variants.is_empty(), "{name}");
            let still = variants.iter().any(|variant| *variant == Expression::default());
            assert_eq!(still, *name == "neutral", "{name}");
        }
    }

    #[test]
    fn a_smile_goes_up_and_grief_goes_down() {
        let mean_curve = |class: &str| {
            let class = CLASSES.iter().position(|name| *name == class).unwrap();
            let mut dice = Dice::of_picture(1, "test", "curve", class);
            (0..200).map(|_| Expression::draw(class, 0.5, &mut dice).mouth_curve).sum::<f32>() / 200.0
        };
        assert!(mean_curve("happy") > 0.3);
        assert!(mean_curve("sad") < -0.3);
        assert!(mean_curve("neutral").abs() < 0.15);
    }
}
