//! From a request's body to the bytes of pictures.
//!
//! In: a body in memory and its content type. Out: the pictures' bytes, undecoded. A URL or a path is never followed.

use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use multer::Multipart;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::error::ApiError;

/// Most bytes of a form's field that is read as a text.
const TEXT_BYTES: usize = 1024;

/// Bodies up to this size are read on the spot: that takes less time than to hand them over.
const SMALL_BYTES: usize = 64 << 10;

/// Base64 with or without padding: both are about.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a value in JSON must be.
const PICTURES: &str = "a picture in base64, or a list of such";

/// What kind of body it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A form, with its boundary.
    Form(String),
    Json,
    /// The body is a picture: an image type, any bytes, or no type at all.
    Raw,
}

impl Kind {
    /// From the header `content-type`, which must be one of those `expected`.
    pub fn of(headers: &HeaderMap, expected: &'static str) -> Result<Self, ApiError> {
        let unknown = ApiError::ContentType { expected };
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Self::Raw) };
        let value = value.to_str().map_err(|_| unknown.clone())?;
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "multipart/form-data" => {
                let boundary = multer::parse_boundary(value);
                boundary.map(Self::Form).map_err(|_| ApiError::Malformed("the form names no boundary".to_owned()))
            }
            "application/json" => Ok(Self::Json),
            // What curl calls --data-binary, whatever it is.
            "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(Self::Raw),
            image if image.starts_with("image/") => Ok(Self::Raw),
            _ => Err(unknown),
        }
    }
}

/// What a form holds of what it was asked for.
#[derive(Debug)]
pub(crate) struct Form<const T: usize> {
    /// The pictures, as [`first_filled`] chooses among the names that were asked for.
    pub pictures: Vec<Result<Bytes, ApiError>>,
    /// The text of each name that was asked for; of several with one name the first.
    pub texts: [Option<String>; T],
}

impl<const T: usize> Form<T> {
    /// Reads a form whose pictures are in fields of the names `fields`, where those of one list mean the same, and whose texts
    /// are in those of the names `texts`. Other fields are passed over, however many and long they are.
    ///
    /// # Errors
    /// No form, more pictures than `most_pictures`, or what is no text of at most 1024 bytes where one is asked for.
    pub fn read<const N: usize>(
        boundary: &str,
        body: &Bytes,
        fields: [&[&str]; N],
        texts: [&str; T],
        most_pictures: usize,
    ) -> Result<Self, ApiError> {
        let reading = async {
            let broken = |error: multer::Error| ApiError::Malformed(format!("the form cannot be read: {error}"));
            let mut parts = Multipart::new(Body::from(body.clone()).into_data_stream(), boundary);
            let mut pictures = [const { Vec::new() }; N];
            let mut found = [const { None }; T];
            while let Some(part) = parts.next_field().await.map_err(broken)? {
                let name = part.name().unwrap_or_default().to_owned();
                let bytes = part.bytes().await.map_err(broken)?;
                if let Some(field) = fields.iter().position(|names| names.contains(&name.as_str())) {
                    if pictures[field].len() == most_pictures {
                        return Err(ApiError::TooManyPictures { limit: most_pictures });
                    }
                    pictures[field].push(Ok(bytes));
                } else if let Some(place) = texts.iter().position(|text| *text == name) {
                    let text = short_text(bytes).ok_or_else(|| {
                        ApiError::Malformed(format!("the form's `{name}` must be a text of at most {TEXT_BYTES} bytes"))
                    })?;
                    found[place].get_or_insert(text);
                }
            }
            Ok(Self { pictures: first_filled(pictures, |field| field).unwrap_or_default(), texts: found })
        };
        // The body is here, so that there is nothing to wait for.
        match pin!(reading).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(form) => form,
            Poll::Pending => Err(ApiError::internal("a form that is here was waited for")),
        }
    }
}

fn short_text(bytes: Bytes) -> Option<String> {
    if bytes.len() <= TEXT_BYTES { String::from_utf8(bytes.into()).ok() } else { None }
}

/// The first field whose `pictures` have any bytes; some clients send all fields and leave the others empty. Where none
/// has any, the first.
pub(crate) fn first_filled<T>(
    fields: impl IntoIterator<Item = T>,
    pictures: impl Fn(&T) -> &[Result<Bytes, ApiError>],
) -> Option<T> {
    let blank = |field: &T| pictures(field).iter().all(|one| one.as_ref().is_ok_and(Bytes::is_empty));
    fields.into_iter().reduce(|first, next| if blank(&first) && !blank(&next) { next } else { first })
}

/// Reads a body that is a JSON object.
pub(crate) fn json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    // For serde, the fields of a structure may also come as a list. (Those further in may, and do no harm.)
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::Malformed("the JSON must be an object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| ApiError::Malformed(format!("the JSON cannot be read: {error}")))
}

/// Does `work` on a body, and does it where no other request waits for it if the body is large.
pub(crate) async fn read<T: Send + 'static>(
    body: Bytes,
    work: impl FnOnce(&Bytes) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if body.len() <= SMALL_BYTES {
        return work(&body);
    }
    tokio::task::spawn_blocking(move || work(&body)).await.map_err(ApiError::internal)?
}

/// The pictures in `json`, a text or a list of at most `most`; of each text the picture, or why it holds none. `key` says
/// where in the request it is.
pub(crate) fn from_json(key: &str, json: &RawValue, most: usize) -> Result<Vec<Result<Bytes, ApiError>>, ApiError> {
    from_json_text(key, json.get(), most)
}

fn from_json_text(key: &str, json: &str, most: usize) -> Result<Vec<Result<Bytes, ApiError>>, ApiError> {
    let mut texts = Texts { pictures: Vec::new(), most, too_many: false };
    match serde_json::Deserializer::from_str(json).deserialize_any(&mut texts) {
        Ok(()) => Ok(texts.pictures),
        Err(_) if texts.too_many => Err(ApiError::TooManyPictures { limit: most }),
        // The error's line and column are those within the value, which nobody can look up.
        Err(_) => Err(ApiError::Malformed(format!("{key} must be {PICTURES}"))),
    }
}

/// What [`from_json`] reads, for its description.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes JSON that is read without it")]
pub(crate) enum OneOrMore {
    /// One text.
    One(String),
    /// Several.
    More(Vec<String>),
}

/// Decodes texts as they are read, and reads no further than the first that is too many.
struct Texts {
    pictures: Vec<Result<Bytes, ApiError>>,
    most: usize,
    too_many: bool,
}

impl<'de> Visitor<'de> for &mut Texts {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(PICTURES)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.pictures.push(from_text(text));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<(), A::Error> {
        /// Not copied where it has no escapes.
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        while let Some(Text(text)) = texts.next_element()? {
            if self.pictures.len() == self.most {
                self.too_many = true;
                return Err(A::Error::custom("too many pictures"));
            }
            self.pictures.push(from_text(&text));
        }
        Ok(())
    }
}

/// The bytes in base64 or in a data URI.
pub(crate) fn from_text(text: &str) -> Result<Bytes, ApiError> {
    let text = text.trim();
    let encoded = match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("data") => {
            let (kind, encoded) = rest.split_once(',').ok_or(ApiError::NotBase64)?;
            if !kind.to_ascii_lowercase().ends_with(";base64") {
                return Err(ApiError::NotBase64);
            }
            encoded
        }
        Some((_, rest)) if rest.starts_with("//") => return Err(ApiError::UrlRefused),
        _ => text,
    };
    let decoded = if encoded.bytes().any(|byte| byte.is_ascii_whitespace()) {
        // Lines of 76 characters, as mail and many tools write them.
        let lines: Vec<u8> = encoded.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        BASE64.decode(lines)
    } else {
        BASE64.decode(encoded)
    };
    decoded.map(Bytes::from).map_err(|_| ApiError::NotBase64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn kind(content_type: &str) -> Result<Kind, &'static str> {
        let headers = [(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())].into_iter().collect();
        Kind::of(&headers, "this").map_err(|error| error.code())
    }

    #[test]
    fn the_content_type_says_how_to_read() {
        assert_eq!(Kind::of(&HeaderMap::new(), "this"), Ok(Kind::Raw));
        assert_eq!(kind("image/png"), Ok(Kind::Raw));
        assert_eq!(kind("application/x-www-form-urlencoded"), Ok(Kind::Raw));
        assert_eq!(kind("Application/JSON; charset=utf-8"), Ok(Kind::Json));
        assert_eq!(kind("multipart/form-data; boundary=x1"), Ok(Kind::Form("x1".to_owned())));
        assert_eq!(kind("multipart/form-data"), Err("malformed"));
        assert_eq!(kind("text/html"), Err("content_type"));
    }

    #[test]
    fn base64_is_read_in_all_its_forms() {
        for text in ["aGVsbG8h", " aGVsbG8h\n", "data:image/png;base64,aGVsbG8h", "DATA:;Base64,aGVs\r\nbG8h"] {
            assert_eq!(from_text(text).unwrap(), "hello!", "{text}");
        }
        assert_eq!(from_text("aGk=").unwrap(), from_text("aGk").unwrap());
    }

    #[test]
    fn paths_and_urls_are_refused() {
        for url in ["http://169.254.169.254/latest", "HTTPS://example.com/a.png", "file:///etc/passwd", "ftp://a"] {
            assert_eq!(from_text(url), Err(ApiError::UrlRefused), "{url}");
        }
        for other in ["../../etc/passwd", "C:\\face.png", "data:image/png,plain", "data:", "\u{e9}", "a"] {
            assert_eq!(from_text(other), Err(ApiError::NotBase64), "{other}");
        }
    }

    #[test]
    fn a_list_of_texts_is_read_up_to_the_first_that_is_too_many() {
        let decoded = |json: &str| {
            let pictures = from_json_text("`image`", json, 2)?;
            pictures.into_iter().collect::<Result<Vec<Bytes>, ApiError>>()
        };
        assert_eq!(decoded(r#""aGk""#).unwrap(), ["hi"]);
        assert_eq!(decoded(r#"["aGk", "aGVsb\u0047\u0038h"]"#).unwrap(), ["hi", "hello!"]);
        assert_eq!(decoded("[]").unwrap(), [""; 0]);
        // What follows is no JSON any more, and is not looked at.
        let too_many = ApiError::TooManyPictures { limit: 2 };
        assert_eq!(decoded(r#"["aGk", "", "", !"#), Err(too_many));
        for bad in ["7", "null", "{}", "[7]", r#"[["aGk"]]"#, r#"["aGk", !"#, "[", ""] {
            let error = ApiError::Malformed("`image` must be a picture in base64, or a list of such".to_owned());
            assert_eq!(decoded(bad), Err(error), "{bad}");
        }
        let each = from_json_text("`image`", r#"["a", "aGk"]"#, 2).unwrap();
        assert_eq!(each, [Err(ApiError::NotBase64), Ok(Bytes::from("hi"))]);
    }

    fn part(name: &str, content: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"../x\"\r\n\r\n{content}\r\n")
    }

    /// Reads a form with these parts, which is asked for the texts `actions` and `detector`.
    fn read_form(parts: &[String], most_pictures: usize) -> Result<Form<2>, ApiError> {
        let body = [&parts.concat(), "--b--\r\n"].concat();
        Form::read("b", &Bytes::from(body), [&["image"]], ["actions", "detector"], most_pictures)
    }

    #[test]
    fn a_form_gives_its_pictures_and_the_texts_that_are_asked_for() {
        let parts = [part("image", "one"), part("actions", "emotion"), part("image", "two"), part("actions", "age")];
        let form = read_form(&parts, 2).unwrap();
        assert_eq!(form.pictures, ["one", "two"].map(|picture| Ok(Bytes::from(picture))));
        assert_eq!(form.texts, [Some("emotion".to_owned()), None]);
        assert_eq!(read_form(&parts, 1).unwrap_err(), ApiError::TooManyPictures { limit: 1 });
        let broken = Form::read("b", &Bytes::from(part("image", "x")), [&["image"]], [], 2);
        assert_eq!(broken.unwrap_err().code(), "malformed");
    }

    #[test]
    fn no_text_that_is_asked_for_is_lost() {
        // Neither to the limit of pictures nor to fields that nobody asked for.
        let mut parts = vec![part("other", "x"); 1000];
        parts.extend([part("other", &"x".repeat(2000)), part("image", "one")]);
        parts.extend([part("actions", "emotion"), part("detector", &"x".repeat(TEXT_BYTES))]);
        let form = read_form(&parts, 1).unwrap();
        assert_eq!(form.texts, ["emotion".to_owned(), "x".repeat(TEXT_BYTES)].map(Some));

        let refused = read_form(&[part("detector", &"x".repeat(TEXT_BYTES + 1))], 1);
        let message = "the form's `detector` must be a text of at most 1024 bytes";
        assert_eq!(refused.unwrap_err(), ApiError::Malformed(message.to_owned()));
    }
}
