//! `POST /v1/analyze`: the faces in pictures, with all that is known about them.

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Answer;
use crate::answer::{AnalyzeAnswer, ImageAnswer};
use crate::body::held_with;
use crate::error::{ApiError, ErrorBody};
use crate::exchange::Trace;
use crate::picture::{Form, Kind, OneOrMore, from_json, json, read};
use crate::pipeline::Faces;
use crate::state::App;

/// Where the faces are: `find` (the default) or `whole`, where each picture is one face.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FacesParameter {
    /// The server looks for them.
    #[default]
    Find,
    /// Each picture is one face.
    Whole,
}

/// How to analyze.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnalyzeParameters {
    /// Where the faces are.
    #[serde(default)]
    #[param(inline)]
    faces: FacesParameter,
}

impl AnalyzeParameters {
    pub fn faces(&self) -> Faces {
        match self.faces {
            FacesParameter::Find => Faces::Find,
            FacesParameter::Whole => Faces::Whole,
        }
    }

    pub fn of(query: Result<Query<Self>, QueryRejection>) -> Answer<Self> {
        query.map(|Query(parameters)| parameters).map_err(|error| ApiError::Malformed(error.body_text()))
    }
}

/// Pictures in base64.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnalyzeJson<'a> {
    #[serde(alias = "images", borrow)]
    image: &'a RawValue,
}

/// Pictures in base64 or as data URIs: one or several, under either name.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the JSON for people and programs")]
pub(crate) enum AnalyzeBody {
    /// As `image`.
    Image(ImageBody),
    /// As `images`.
    Images(ImagesBody),
}

/// Pictures as `image`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the JSON for people and programs")]
pub(crate) struct ImageBody {
    /// A picture, or several.
    image: OneOrMore,
}

/// Pictures as `images`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the JSON for people and programs")]
pub(crate) struct ImagesBody {
    /// A picture, or several.
    images: OneOrMore,
}

/// A form with pictures.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form for people and programs")]
pub(crate) struct AnalyzeForm {
    /// A picture; may be given several times.
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    image: Vec<String>,
    /// The same.
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    images: Vec<String>,
}

const EXPECTED: &str = "a form with fields `image`, a picture as the body, or JSON with `image` in base64";

/// Finds faces and classifies their expressions.
///
/// Pictures are PNG, JPEG, BMP or WebP. Of one picture the error is the answer's; of several each has its own.
#[utoipa::path(
    post,
    path = "/v1/analyze",
    tag = "analyze",
    params(AnalyzeParameters),
    request_body(
        description = "A form, the bytes of a picture, or JSON",
        content(
            (AnalyzeForm = "multipart/form-data"),
            // Without a schema: what is no text is none of a schema's types.
            ("image/*"),
            ("application/octet-stream"),
            (AnalyzeBody = "application/json"),
        ),
    ),
    responses(
        (status = 200, description = "What was found", body = AnalyzeAnswer),
        (status = "4XX", description = "The request or its only picture cannot be used", body = ErrorBody),
        (status = 503, description = "Too much to do; see the header retry-after", body = ErrorBody),
    ),
    security(("token" = [])),
)]
pub(crate) async fn analyze(
    State(app): State<App>,
    Extension(trace): Extension<Trace>,
    query: Result<Query<AnalyzeParameters>, QueryRejection>,
    request: Request,
) -> Answer<Json<AnalyzeAnswer>> {
    let parameters = AnalyzeParameters::of(query)?;
    let (head, body) = request.into_parts();
    let kind = Kind::of(&head.headers, "multipart/form-data, application/json, image/* or application/octet-stream")?;
    let body = app.bodies.collect(&head.headers, body).await?;
    let pictures = pictures(kind, body.clone(), app.config.limits.pictures).await?;
    let usable: Vec<Bytes> = pictures.iter().flatten().map(|picture| held_with(&body, picture.clone())).collect();
    let mut analyzed = app.pipeline.analyze(usable, parameters.faces()).await?.into_iter();
    let mut next = || analyzed.next().unwrap_or_else(|| Err(ApiError::internal("a picture has no result")));
    let results: Vec<_> = pictures.into_iter().map(|picture| picture.and_then(|_| next())).collect();
    if let [Err(error)] = results.as_slice() {
        return Err(error.clone());
    }
    let images = results.into_iter().map(|result| ImageAnswer::new(result, &trace, &app)).collect();
    Ok(Json(AnalyzeAnswer { model: app.card.name.clone(), images }))
}

/// The pictures in a body, or why a part of it is none.
async fn pictures(kind: Kind, body: Bytes, most: usize) -> Answer<Vec<Answer<Bytes>>> {
    let pictures = match kind {
        Kind::Form(boundary) => {
            let form = move |body: &Bytes| Form::read(&boundary, body, [&["image", "images"]], [], most);
            read(body, form).await?.pictures
        }
        Kind::Json => {
            read(body, move |body| from_json("`image` or `images`", json::<AnalyzeJson>(body)?.image, most)).await?
        }
        Kind::Raw if body.is_empty() => Vec::new(),
        Kind::Raw if body.starts_with(b"image=") || body.starts_with(b"images=") => {
            let detail = "the body is an encoded form: send multipart/form-data, JSON, or the bytes of a picture";
            return Err(ApiError::Malformed(detail.to_owned()));
        }
        Kind::Raw => vec![Ok(body)],
    };
    if pictures.is_empty() { Err(ApiError::NoPicture { expected: EXPECTED }) } else { Ok(pictures) }
}
