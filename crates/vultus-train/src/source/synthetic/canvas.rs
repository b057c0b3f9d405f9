//! A grey canvas with a posed head on it.
//!
//! In: outlines in the coordinates of the face (origin at the head's centre, x to the right, y down, the head's half
//! height is 1). Out: antialiased pixels of the picture. It turns points by the head's pose, but knows no features.

use super::person::Scene;
use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path, PathBuilder, Pixmap, Point, Shader,
    SpreadMode, Stroke, Transform,
};

/// Depth of the head in half heights: how far features wander when the head turns.
const DEPTH: f32 = 0.72;

/// A point of the face: x to the right, y down, in half heights of the head.
pub type FacePoint = (f32, f32);

/// Pixels, and the way from face coordinates to them.
pub struct Canvas {
    pixmap: Pixmap,
    side: f32,
    centre: (f32, f32),
    scale: f32,
    yaw: f32,
    pitch: f32,
    roll: f32,
}

impl Canvas {
    /// A black canvas of `side` x `side` pixels; `None` when that is no size for a picture.
    pub fn new(side: u32, scene: &Scene, downcast: f32) -> Option<Self> {
        let pixels = side as f32;
        Some(Self {
            pixmap: Pixmap::new(side, side)?,
            side: pixels,
            centre: (scene.centre.0 * pixels, scene.centre.1 * pixels),
            scale: scene.scale * pixels,
            yaw: scene.yaw,
            pitch: scene.pitch + 0.18 * downcast,
            roll: scene.roll,
        })
    }

    /// Where a point that stands `lift` before the face's surface is seen, in pixels.
    fn project(&self, (x, y): FacePoint, lift: f32) -> Point {
        let z = DEPTH * (1.0 - (x / 0.95).powi(2) - (y / 1.25).powi(2)).max(0.0).sqrt() + lift;
        let turned = x * self.yaw.cos() + z * self.yaw.sin();
        let towards = z * self.yaw.cos() - x * self.yaw.sin();
        let nodded = y * self.pitch.cos() + towards * self.pitch.sin();
        self.place(turned, nodded)
    }

    /// A point of the picture plane through the head's centre, in pixels: no yaw, no nod.
    fn place(&self, x: f32, y: f32) -> Point {
        let (sine, cosine) = self.roll.sin_cos();
        Point::from_xy(
            self.centre.0 + self.scale * (x * cosine - y * sine),
            self.centre.1 + self.scale * (x * sine + y * cosine),
        )
    }

    /// Fills an outline that lies on the face.
    pub fn fill(&mut self, outline: &[FacePoint], grey: f32, opacity: f32) {
        let path = path_of(outline.iter().map(|&point| self.project(point, 0.0)), true);
        self.paint(path, solid(grey, opacity));
    }

    /// Fills an outline that does not turn with the head: the head itself, its hair.
    pub fn fill_flat(&mut self, outline: &[FacePoint], grey: f32, opacity: f32) {
        let path = path_of(outline.iter().map(|&(x, y)| self.place(x, y)), true);
        self.paint(path, solid(grey, opacity));
    }

    /// Shades an outline that does not turn with the head from clear to black along `angle` (radians).
    pub fn shade_flat(&mut self, outline: &[FacePoint], angle: f32, opacity: f32) {
        let path = path_of(outline.iter().map(|&(x, y)| self.place(x, y)), true);
        let (sine, cosine) = angle.sin_cos();
        let (reach, (x, y)) = (self.scale, self.centre);
        let start = Point::from_xy(x - 0.6 * reach * cosine, y - 0.6 * reach * sine);
        let end = Point::from_xy(x + reach * cosine, y + reach * sine);
        self.paint(path, gradient(start, end, (0.0, 0.0), (0.0, opacity)));
    }

    /// Draws a line that lies on the face, `lift` before it; `width` in face coordinates.
    pub fn line(&mut self, points: &[FacePoint], lift: f32, width: f32, grey: f32, opacity: f32) {
        let Some(path) = path_of(points.iter().map(|&point| self.project(point, lift)), false) else { return };
        let stroke = Stroke {
            width: (width * self.scale).max(0.3),
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        let paint = Paint { shader: solid(grey, opacity), ..Paint::default() };
        self.pixmap.stroke_path(&path, &paint, &stroke, Transform::identity(), None);
    }

    /// Fills the whole picture with a gradient between two greys.
    pub fn backdrop(&mut self, greys: (f32, f32), angle: f32) {
        let (half, (sine, cosine)) = (self.side / 2.0, angle.sin_cos());
        let start = Point::from_xy(half - half * cosine, half - half * sine);
        let end = Point::from_xy(half + half * cosine, half + half * sine);
        let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
        let path = path_of(corners.iter().map(|&(x, y)| Point::from_xy(x * self.side, y * self.side)), true);
        self.paint(path, gradient(start, end, (greys.0, 1.0), (greys.1, 1.0)));
    }

    /// Fills an outline given in picture sides from the upper left corner.
    pub fn fill_picture(&mut self, outline: &[(f32, f32)], grey: f32, opacity: f32) {
        let path = path_of(outline.iter().map(|&(x, y)| Point::from_xy(x * self.side, y * self.side)), true);
        self.paint(path, solid(grey, opacity));
    }

    fn paint(&mut self, path: Option<Path>, shader: Shader<'_>) {
        if let Some(path) = path {
            let paint = Paint { shader, ..Paint::default() };
            self.pixmap.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
        }
    }

    /// The grey values, row by row, each 0..1. The backdrop is opaque, so the premultiplied red is the grey.
    pub fn greys(&self) -> Vec<f32> {
        self.pixmap.pixels().iter().map(|pixel| f32::from(pixel.red()) / 255.0).collect()
    }
}

/// Points of an ellipse.
pub fn ellipse((x, y): FacePoint, half_width: f32, half_height: f32, points: usize) -> Vec<FacePoint> {
    let step = std::f32::consts::TAU / points as f32;
    let angles = (0..points).map(|index| index as f32 * step);
    angles.map(|angle| (x + half_width * angle.cos(), y + half_height * angle.sin())).collect()
}

/// The same points on the other side of the face.
pub fn mirrored(points: &[FacePoint]) -> Vec<FacePoint> {
    points.iter().map(|&(x, y)| (-x, y)).collect()
}

fn path_of(mut points: impl Iterator<Item = Point>, closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    let first = points.next()?;
    builder.move_to(first.x, first.y);
    for point in points {
        builder.line_to(point.x, point.y);
    }
    if closed {
        builder.close();
    }
    builder.finish()
}

fn colour(grey: f32, opacity: f32) -> Color {
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let grey = byte(grey);
    Color::from_rgba8(grey, grey, grey, byte(opacity))
}

fn solid(grey: f32, opacity: f32) -> Shader<'static> {
    Shader::SolidColor(colour(grey, opacity))
}

/// A gradient between two pairs of grey and opacity.
fn gradient(start: Point, end: Point, from: (f32, f32), to: (f32, f32)) -> Shader<'static> {
    let stops = vec![GradientStop::new(0.0, colour(from.0, from.1)), GradientStop::new(1.0, colour(to.0, to.1))];
    LinearGradient::new(start, end, stops, SpreadMode::Pad, Transform::identity())
        .unwrap_or_else(|| solid((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0))
}
