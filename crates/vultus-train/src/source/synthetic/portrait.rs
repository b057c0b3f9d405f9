//! Draws one face.
//!
//! In: a [`Person`], an [`Expression`], a [`Scene`]. Out: strokes and fills on a [`Canvas`], from the background to
//! what stands before the face. Blur, noise and the final size are not its business.

use super::canvas::{Canvas, FacePoint, ellipse, mirrored};
use super::expression::Expression;
use super::person::{Hair, Person, Scene};

/// Height of the eyes' centres.
const EYE_LINE: f32 = -0.13;
/// Positions along lids, brows and lips, from one end (-1) to the other (1).
const STEPS: usize = 12;

/// Draws the whole picture.
pub fn draw(canvas: &mut Canvas, person: &Person, expression: &Expression, scene: &Scene) {
    let chin = 1.0 + 0.1 * expression.jaw;
    let head = head_outline(person, chin);
    surroundings(canvas, person, scene);
    canvas.fill_flat(&head, person.skin, 1.0);
    canvas.shade_flat(&head, scene.light_angle, scene.shadow);
    if person.beard > 0.0 {
        beard(canvas, person, expression);
    }
    eyes(canvas, person, expression, scene);
    brows(canvas, person, expression);
    nose(canvas, person, expression, scene);
    mouth(canvas, person, expression);
    lines(canvas, person, expression);
    front(canvas, person, scene);
}

fn positions() -> impl DoubleEndedIterator<Item = f32> + Clone {
    (0..=STEPS).map(|step| 2.0 * step as f32 / STEPS as f32 - 1.0)
}

fn head_outline(person: &Person, chin: f32) -> Vec<FacePoint> {
    ellipse((0.0, 0.0), 1.0, 1.0, 32)
        .into_iter()
        .map(|(x, y)| {
            if y < 0.0 {
                return (x * person.head_width, y);
            }
            // Below the eyes the sides go straight down for a while, then in to the chin.
            let narrowing = 1.0 - (1.0 - person.jaw_width) * y * y;
            (x.signum() * x.abs().powf(0.8) * person.head_width * narrowing, y * chin)
        })
        .collect()
}

fn surroundings(canvas: &mut Canvas, person: &Person, scene: &Scene) {
    canvas.backdrop(scene.background, scene.background_angle);
    let (x, y, radius, grey) = scene.patch;
    canvas.fill_picture(&ellipse((x, y), radius, radius, 16), grey, 0.7);
    let width = person.head_width;
    if matches!(person.hair, Hair::Long | Hair::Fringe) {
        canvas.fill_flat(&ellipse((0.0, 0.15), width * 1.25, 1.35, 24), person.hair_grey, 1.0);
    }
    let neck = [(-0.6 * width, 0.5), (0.6 * width, 0.5), (0.7 * width, 1.6), (-0.7 * width, 1.6)];
    canvas.fill_flat(&neck, person.skin * 0.72, 1.0);
    canvas.fill_flat(&ellipse((0.0, 2.0), 1.5, 0.65, 24), 1.0 - scene.background.0 * 0.9, 1.0);
    for side in [-1.0, 1.0] {
        canvas.fill_flat(&ellipse((side * width, 0.03), 0.09, 0.2, 12), person.skin * 0.85, 1.0);
    }
}

fn beard(canvas: &mut Canvas, person: &Person, expression: &Expression) {
    let low = 0.93 + 0.1 * expression.jaw;
    let half_width = person.head_width * person.jaw_width * 0.85;
    let lower = positions().map(|t| (t * half_width, 0.4 + (low - 0.4) * (1.0 - t * t).powf(0.4)));
    let upper = positions().rev().map(|t| (t * half_width, 0.34 + 0.05 * t * t));
    let outline: Vec<FacePoint> = lower.chain(upper).collect();
    canvas.fill(&outline, person.hair_grey, person.beard);
}

fn eyes(canvas: &mut Canvas, person: &Person, expression: &Expression, scene: &Scene) {
    let open = (person.eye_openness * (1.0 + 0.75 * expression.eyelids)).clamp(0.12, 2.1);
    let upper_height = 0.105 * open;
    let lower_height = (0.07 * open.sqrt() * (1.0 - 0.65 * expression.squint)).max(0.008);
    let half_width = person.eye_width;
    for side in [-1.0_f32, 1.0] {
        let centre = side * person.eye_spacing;
        // t runs from the inner corner (-1) to the outer one (1); worry pulls the outer corner down.
        let tilt = person.eye_tilt - 0.02 * expression.brow_slant;
        let x_at = |t: f32| centre + side * t * half_width;
        let upper_at = |t: f32| EYE_LINE - tilt * t - upper_height * (1.0 - t * t).max(0.0).powf(0.65);
        let lower_at = |t: f32| EYE_LINE - tilt * t + lower_height * (1.0 - t * t);
        let upper: Vec<FacePoint> = positions().map(|t| (x_at(t), upper_at(t))).collect();
        let lower: Vec<FacePoint> = positions().map(|t| (x_at(t), lower_at(t))).collect();
        let socket = ellipse((centre, EYE_LINE - 0.02), half_width * 1.25, 0.19, 16);
        canvas.fill(&socket, 0.0, 0.1);
        let white: Vec<FacePoint> = upper.iter().copied().chain(lower.iter().rev().copied()).collect();
        canvas.fill(&white, 0.55 + 0.45 * person.skin.max(0.5), 1.0);

        // Iris and pupil are cut off by the lids.
        let look = (
            centre + scene.gaze.0 * person.iris,
            EYE_LINE - 0.02 + (scene.gaze.1 + 0.8 * expression.downcast) * person.iris * 0.7,
        );
        for (radius, grey) in [(person.iris, person.iris_grey), (person.iris * 0.45, 0.02)] {
            let disc: Vec<FacePoint> = ellipse(look, radius, radius, 16)
                .into_iter()
                .map(|(x, y)| {
                    let t = (side * (x - centre) / half_width).clamp(-1.0, 1.0);
                    (x, y.max(upper_at(t)).min(lower_at(t).max(upper_at(t))))
                })
                .collect();
            canvas.fill(&disc, grey, 1.0);
        }
        canvas.line(&upper, 0.0, 0.04, 0.05, 0.9);
        canvas.line(&lower, 0.0, 0.018, 0.1, 0.6);
        let crease: Vec<FacePoint> = upper.iter().map(|&(x, y)| (x, y - 0.045)).collect();
        canvas.line(&crease, 0.0, 0.015, 0.1, 0.35);
        if expression.squint > 0.2 {
            let bag: Vec<FacePoint> = lower.iter().map(|&(x, y)| (x, y + 0.06)).collect();
            canvas.line(&bag, 0.0, 0.03, 0.05, 0.4 * expression.squint);
        }
        if person.glasses {
            let mut frame = ellipse((centre, EYE_LINE), half_width * 1.4, 0.2, 20);
            frame.push(frame[0]);
            canvas.fill(&frame, 1.0, 0.12);
            canvas.line(&frame, 0.05, 0.035, 0.08, 0.9);
            let arm = [(centre + side * half_width * 1.4, EYE_LINE), (side * person.head_width, EYE_LINE - 0.03)];
            canvas.line(&arm, 0.0, 0.03, 0.08, 0.9);
        }
    }
    if person.glasses {
        let inner = person.eye_spacing - person.eye_width * 1.4;
        canvas.line(&[(-inner, EYE_LINE), (inner, EYE_LINE)], 0.08, 0.03, 0.08, 0.9);
    }
}

fn brows(canvas: &mut Canvas, person: &Person, expression: &Expression) {
    let slant = person.brow_slant + expression.brow_slant;
    let height = EYE_LINE - person.brow_distance - 0.13 * expression.brow_height;
    let arch = (0.035 + 0.06 * expression.brow_bend).max(-0.03);
    let half_length = person.eye_width * 1.25;
    // Anger draws the brows together.
    let together = 0.05 * (-slant).clamp(0.0, 1.2);
    for side in [-1.0_f32, 1.0] {
        let centre = person.eye_spacing + 0.02 - together;
        let middle = |t: f32| {
            let y = height + 0.1 * slant * t - arch * (1.0 - t * t);
            (side * (centre + t * half_length), y.min(EYE_LINE - 0.06))
        };
        let thickness = |t: f32| person.brow_thickness * (0.62 - 0.3 * t);
        let upper = positions().map(|t| (middle(t).0, middle(t).1 - thickness(t)));
        let lower = positions().rev().map(|t| (middle(t).0, middle(t).1 + thickness(t) * 0.7));
        let outline: Vec<FacePoint> = upper.chain(lower).collect();
        canvas.fill(&outline, person.hair_grey * 0.8, 0.92);
    }
}

fn nose(canvas: &mut Canvas, person: &Person, expression: &Expression, scene: &Scene) {
    let (width, wrinkle) = (person.nose_width, expression.wrinkle);
    let tip = person.nose_tip - 0.05 * wrinkle;
    let dark = 0.25 * person.skin;
    let shaded = if scene.light_angle.cos() >= 0.0 { 1.0 } else { -1.0 };
    let ridge = [(shaded * 0.06, EYE_LINE), (shaded * 0.07, 0.05), (shaded * width * 0.9, tip - 0.02)];
    canvas.line(&ridge, 0.06, 0.035, dark, 0.45);
    canvas.fill(&ellipse((0.0, tip - 0.02), width * 0.55, 0.06, 12), 1.0, 0.1);
    let flare = width * (1.0 + 0.2 * wrinkle);
    for side in [-1.0, 1.0] {
        let wing = [(side * flare, tip - 0.08), (side * flare * 1.08, tip), (side * flare * 0.7, tip + 0.03)];
        canvas.line(&wing, 0.03, 0.025, dark, 0.6);
        canvas.fill(&ellipse((side * width * 0.45, tip + 0.03), 0.04, 0.022, 10), dark * 0.5, 0.9);
    }
    for fold in 0..3 {
        let y = EYE_LINE - 0.03 + 0.075 * fold as f32;
        let bent: Vec<FacePoint> = positions().map(|t| (t * (0.07 + 0.015 * fold as f32), y + 0.035 * t * t)).collect();
        canvas.line(&bent, 0.06, 0.026, dark, (0.75 * (wrinkle - 0.15)).clamp(0.0, 0.75));
    }
}

fn mouth(canvas: &mut Canvas, person: &Person, expression: &Expression) {
    let curve = person.mouth_curve + expression.mouth_curve;
    let round = expression.round;
    let half_width = person.mouth_width * (1.0 + 0.45 * expression.mouth_width).clamp(0.5, 1.7) * (1.0 - 0.3 * round);
    let height = person.mouth_height + 0.03 * curve - 0.05 * expression.upper_lip;
    let shape = 1.0 - 0.5 * round;
    let gap = 0.26 * expression.jaw;
    // The line between the lips at t, and how far each lip stands away from it.
    let middle = |t: f32| height - 0.17 * curve * (t * t - 0.4);
    let swell = |t: f32| (1.0 - t * t).max(0.0).powf(shape);
    // A raised upper lip (disgust) shows a square of teeth in the middle.
    let upper_gap = |t: f32| 0.25 * gap * swell(t) + 0.07 * expression.upper_lip * (1.0 - t.powi(4)).max(0.0);
    let lower_gap = |t: f32| gap * swell(t);
    let lip_tone = person.skin * 0.55;
    let lip = |t: f32| person.lips * (1.0 - 0.85 * t * t);
    let outer_upper = positions().map(|t| (t * half_width, middle(t) - upper_gap(t) - lip(t)));
    let outer_lower = positions().rev().map(|t| (t * half_width, middle(t) + lower_gap(t) + 1.2 * lip(t)));
    let lips: Vec<FacePoint> = outer_upper.chain(outer_lower).collect();
    canvas.fill(&lips, lip_tone, 0.8);

    let inner = half_width * 0.94;
    let inside_upper: Vec<FacePoint> = positions().map(|t| (t * inner, middle(t) - upper_gap(t))).collect();
    let inside_lower: Vec<FacePoint> = positions().map(|t| (t * inner, middle(t) + lower_gap(t))).collect();
    let inside: Vec<FacePoint> = inside_upper.iter().copied().chain(inside_lower.iter().rev().copied()).collect();
    canvas.fill(&inside, 0.06, 0.95);
    if expression.teeth > 0.1 {
        let bared = 0.03 + 0.09 * expression.teeth;
        let edge =
            inside_upper.iter().zip(&inside_lower).rev().map(|(upper, lower)| (upper.0, lower.1.min(upper.1 + bared)));
        let teeth: Vec<FacePoint> = inside_upper.iter().copied().chain(edge).collect();
        canvas.fill(&teeth, 0.93, 0.95);
    }
    let seam: Vec<FacePoint> = positions().map(|t| (t * half_width, middle(t) - upper_gap(t))).collect();
    canvas.line(&seam, 0.0, 0.028, 0.08, 0.85);
    let below = height + lower_gap(0.0) + 1.2 * person.lips + 0.07;
    canvas.line(&[(-0.1, below), (0.1, below)], 0.0, 0.03, 0.0, 0.25);

    // The folds from the wings of the nose around the mouth.
    let fold_depth = (0.12 * person.age + 0.5 * expression.upper_lip.max(0.6 * expression.mouth_curve)).clamp(0.0, 0.6);
    let top = (person.nose_width + 0.05, person.nose_tip - 0.03 - 0.05 * expression.wrinkle);
    let corner = (half_width + 0.07, middle(1.0) - 0.01);
    let fold = [top, ((top.0 + corner.0) / 2.0 + 0.05, (top.1 + corner.1) / 2.0 - 0.02), corner];
    canvas.line(&fold, 0.0, 0.03, 0.1 * person.skin, fold_depth);
    canvas.line(&mirrored(&fold), 0.0, 0.03, 0.1 * person.skin, fold_depth);
}

/// Lines of the forehead and between the brows.
fn lines(canvas: &mut Canvas, person: &Person, expression: &Expression) {
    let raised = (0.5 * (expression.brow_height - 0.35) + 0.12 * (person.age - 0.6)).clamp(0.0, 0.5);
    for row in 0..2 {
        let y = EYE_LINE - person.brow_distance - 0.24 - 0.09 * row as f32 - 0.05 * expression.brow_height;
        let wave: Vec<FacePoint> = positions().map(|t| (t * 0.36, y + 0.02 * t * t)).collect();
        canvas.line(&wave, 0.0, 0.022, 0.1 * person.skin, raised);
    }
    let frown = (0.6 * (-expression.brow_slant - 0.25)).clamp(0.0, 0.6);
    for side in [-1.0, 1.0] {
        let furrow = [(side * 0.055, EYE_LINE - 0.3), (side * 0.045, EYE_LINE - 0.14)];
        canvas.line(&furrow, 0.02, 0.028, 0.1 * person.skin, frown);
    }
}

fn front(canvas: &mut Canvas, person: &Person, scene: &Scene) {
    let width = person.head_width;
    let line = match person.hair {
        Hair::Bald => None,
        Hair::Short => Some((-0.72, 0.06)),
        Hair::Long => Some((-0.66, 0.2)),
        Hair::Fringe => Some((-0.56, 0.02)),
    };
    if let Some((edge, drop)) = line {
        let crown = positions().map(|t| (t * width * 1.07, -1.1 * (1.0 - 0.75 * t * t).max(0.0).sqrt()));
        let hairline = positions().rev().map(|t| (t * width * 1.07, edge + drop * t * t * 1.5 + 0.25 * t.powi(4)));
        let cap: Vec<FacePoint> = crown.chain(hairline).collect();
        canvas.fill_flat(&cap, person.hair_grey, 1.0);
    }
    if let Some(occluder) = scene.occluder {
        let (sine, cosine) = occluder.angle.sin_cos();
        let outline: Vec<(f32, f32)> = ellipse((0.0, 0.0), occluder.half_size.0, occluder.half_size.1, 20)
            .into_iter()
            .map(|(x, y)| (occluder.centre.0 + x * cosine - y * sine, occluder.centre.1 + x * sine + y * cosine))
            .collect();
        canvas.fill_picture(&outline, occluder.grey, 1.0);
    }
}
