//! `POST /analyze`: the question and the answer of DeepFace's server, for its clients.
//!
//! Only the emotion is answered, and no URL or path is followed.

use std::borrow::Cow;
use std::fmt;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use image::guess_format;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use vultus::analyze::AnalyzedFace;

use super::Answer;
use crate::body::held_with;
use crate::error::{ApiError, ErrorBody};
use crate::picture::{Form, Kind, OneOrMore, first_filled, from_json, from_text, json, read};
use crate::pipeline::Faces;
use crate::state::App;

/// The bodies that are read.
const KINDS: &str = "application/json or multipart/form-data";

/// What DeepFace's clients ask for. Fields that change nothing here are passed over.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DeepfaceJson<'a> {
    /// A picture in base64 or as a data URI, or several.
    #[serde(borrow)]
    #[schema(value_type = Option<OneOrMore>)]
    img: Option<&'a RawValue>,
    /// The same by its older name, where `img` is absent or empty.
    #[serde(borrow)]
    #[schema(value_type = Option<OneOrMore>)]
    img_path: Option<&'a RawValue>,
    /// What is asked about; without `emotion` there is no answer.
    #[serde(default)]
    #[schema(value_type = Option<OneOrMore>)]
    actions: Option<Actions>,
    /// Whether a picture without a face is an error; if not, all of it is taken for one. True by default.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    enforce_detection: Option<Switch>,
    /// `skip` takes the whole picture for a face; any other name leaves the server's finder to it.
    #[serde(default)]
    detector_backend: Option<String>,
}

/// Whether the emotion is asked about, in a text or in a list of texts.
#[derive(Debug, PartialEq)]
struct Actions {
    emotion: bool,
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Actions;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Actions, E> {
                Ok(Actions { emotion: text.contains("emotion") })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Actions, A::Error> {
                let mut emotion = false;
                while let Some(text) = texts.next_element::<String>()? {
                    emotion |= text == "emotion";
                }
                Ok(Actions { emotion })
            }
        }

        deserializer.deserialize_any(Read)
    }
}

/// True or false, or one of these words.
#[derive(Debug, PartialEq)]
struct Switch {
    on: bool,
}

impl Switch {
    const EXPECTED: &str = "`enforce_detection` must be true or false";

    fn of(text: &str) -> Option<Self> {
        text.to_ascii_lowercase().parse().ok().map(|on| Self { on })
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said<'a> {
            On(bool),
            Text(#[serde(borrow)] Cow<'a, str>),
        }

        let switch = match Said::deserialize(deserializer) {
            Ok(Said::On(on)) => Some(Self { on }),
            Ok(Said::Text(text)) => Self::of(&text),
            Err(_) => None,
        };
        switch.ok_or_else(|| D::Error::custom(Self::EXPECTED))
    }
}

/// The same as a form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form for people and programs")]
pub(crate) struct DeepfaceForm {
    /// A picture; may be given several times.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    img: Option<Vec<String>>,
    /// The same by its older name, where `img` is absent or empty.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    img_path: Option<Vec<String>>,
    /// What is asked about; without `emotion` there is no answer.
    actions: Option<String>,
    /// Whether a picture without a face is an error.
    enforce_detection: Option<bool>,
    /// `skip` takes the whole picture for a face.
    detector_backend: Option<String>,
}

/// The answer in DeepFace's form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeepfaceAnswer {
    /// What was found.
    results: Results,
}

/// A face each; for several pictures or a list of one, a list of faces each.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Results {
    /// The faces in one picture.
    One(Vec<DeepfaceResult>),
    /// The faces in each picture.
    Several(Vec<Vec<DeepfaceResult>>),
}

/// A face in DeepFace's form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeepfaceResult {
    /// Every class with its probability in per cent.
    #[schema(value_type = std::collections::BTreeMap<String, f32>)]
    emotion: Map<String, Value>,
    /// The most probable class; null if the model is too unsure.
    dominant_emotion: Option<String>,
    /// Where the face is.
    region: Region,
    /// How sure the finder is that this is a face, 0 to 1; 0 where none was found or looked for.
    face_confidence: f32,
}

/// A box in pixels.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Region {
    /// Left edge.
    x: u32,
    /// Upper edge.
    y: u32,
    /// Width.
    w: u32,
    /// Height.
    h: u32,
    /// The person's left eye, where the finder gives it.
    left_eye: Option<[i32; 2]>,
    /// The person's right eye, likewise.
    right_eye: Option<[i32; 2]>,
}

/// A request, however it came.
struct Question {
    pictures: Vec<Bytes>,
    /// Whether the answer has a list for each picture.
    several: bool,
    faces: Faces,
}

/// Finds faces and classifies their expressions, as DeepFace's server does.
///
/// Of several pictures all are answered or none: the error names one that cannot be used. `/v1/analyze` gives each its
/// own result.
#[utoipa::path(
    post,
    path = "/analyze",
    tag = "deepface",
    operation_id = "deepface_analyze",
    request_body(content(
        (DeepfaceJson = "application/json"),
        (DeepfaceForm = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "A face each", body = DeepfaceAnswer),
        (status = "4XX", description = "The request or a picture cannot be used", body = ErrorBody),
        (status = 503, description = "Too much to do; see the header retry-after", body = ErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn analyze(State(app): State<App>, request: Request) -> Answer<Json<DeepfaceAnswer>> {
    let (head, body) = request.into_parts();
    let kind = Kind::of(&head.headers, KINDS)?;
    let body = app.bodies.collect(&head.headers, body).await?;
    let question = Question::read(kind, body.clone(), app.config.limits.pictures).await?;
    let finds = question.faces != Faces::Whole;
    let pictures = question.pictures.into_iter().map(|picture| held_with(&body, picture)).collect();
    let analyzed = app.pipeline.analyze(pictures, question.faces).await?;
    let count = analyzed.len();
    let mut results = Vec::with_capacity(count);
    for (index, result) in analyzed.into_iter().enumerate() {
        let faces = match result {
            Ok(analysis) if analysis.faces.is_empty() => Err(ApiError::NoFace),
            result => result.map(|analysis| analysis.faces),
        };
        let faces = faces.map_err(|error| error.of_picture(index, count))?;
        let confidence = |face: &AnalyzedFace| if finds { face.confidence } else { 0.0 };
        let face = |face: AnalyzedFace| DeepfaceResult { face_confidence: confidence(&face), ..face.into() };
        results.push(faces.into_iter().map(face).collect());
    }
    let results = if question.several { Results::Several(results) } else { Results::One(results.remove(0)) };
    Ok(Json(DeepfaceAnswer { results }))
}

impl Question {
    async fn read(kind: Kind, body: Bytes, most: usize) -> Answer<Self> {
        const EXPECTED: &str = "JSON with `img` in base64, or a form with fields `img`";
        let (pictures, several, about_emotion, enforce, detector): (Vec<Answer<Bytes>>, _, _, _, _) = match kind {
            Kind::Form(boundary) => {
                let texts = ["actions", "enforce_detection", "detector_backend"];
                let read_all = move |body: &Bytes| {
                    let form = Form::read(&boundary, body, [&["img"], &["img_path"]], texts, most)?;
                    let pictures: Vec<Answer<Bytes>> =
                        form.pictures.into_iter().map(|picture| picture.and_then(text_or_bytes)).collect();
                    Ok(Form { pictures, ..form })
                };
                let form = read(body, read_all).await?;
                let [actions, enforce, detector] = form.texts;
                let odd = || ApiError::Malformed(Switch::EXPECTED.to_owned());
                let enforce = enforce.map(|text| Switch::of(&text).ok_or_else(odd)).transpose()?;
                let about_emotion = actions.is_none_or(|actions| actions.contains("emotion"));
                let several = form.pictures.len() > 1;
                (form.pictures, several, about_emotion, enforce, detector)
            }
            Kind::Json => {
                let read_all = move |body: &Bytes| {
                    let asked: DeepfaceJson = json(body)?;
                    let fields = [("`img`", asked.img), ("`img_path`", asked.img_path)].into_iter();
                    let read_one = |(name, field): (&str, Option<&RawValue>)| {
                        let field = field?;
                        Some(from_json(name, field, most).map(|pictures| (pictures, field.get().starts_with('['))))
                    };
                    let fields = fields.filter_map(read_one).collect::<Answer<Vec<_>>>()?;
                    let (pictures, several) = first_filled(fields, |(pictures, _)| pictures).unwrap_or_default();
                    let about_emotion = asked.actions.is_none_or(|actions| actions.emotion);
                    Ok((pictures, several, about_emotion, asked.enforce_detection, asked.detector_backend))
                };
                read(body, read_all).await?
            }
            Kind::Raw => return Err(ApiError::ContentType { expected: KINDS }),
        };
        if !about_emotion {
            return Err(ApiError::Malformed("only the action `emotion` is answered here".to_owned()));
        }
        if pictures.is_empty() {
            return Err(ApiError::NoPicture { expected: EXPECTED });
        }
        let faces = match detector.as_deref() {
            Some("skip") => Faces::Whole,
            _ if enforce.is_none_or(|enforce| enforce.on) => Faces::Find,
            _ => Faces::FindOrWhole,
        };
        let count = pictures.len();
        let named = |(index, picture): (usize, Answer<Bytes>)| picture.map_err(|error| error.of_picture(index, count));
        let pictures = pictures.into_iter().enumerate().map(named).collect::<Answer<Vec<Bytes>>>()?;
        Ok(Self { pictures, several, faces })
    }
}

/// A form's field with a picture may be a file, or a text as in JSON.
fn text_or_bytes(field: Bytes) -> Answer<Bytes> {
    match std::str::from_utf8(&field) {
        Ok(text) if !text.is_empty() && guess_format(&field).is_err() => from_text(text),
        _ => Ok(field),
    }
}

impl From<AnalyzedFace> for DeepfaceResult {
    fn from(face: AnalyzedFace) -> Self {
        let percent = |(name, probability): (String, f32)| (name, Value::from(f64::from(probability) * 100.0));
        let eye = |index: usize| {
            face.landmarks.map(|points| points[index]).map(|(x, y)| [x.round() as i32, y.round() as i32])
        };
        let area = face.area;
        Self {
            region: Region { x: area.x, y: area.y, w: area.width, h: area.height, left_eye: eye(1), right_eye: eye(0) },
            dominant_emotion: face.label,
            face_confidence: face.confidence,
            emotion: face.probabilities.into_iter().map(percent).collect(),
        }
    }
}
