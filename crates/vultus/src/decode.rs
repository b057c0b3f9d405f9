//! From the bytes of a picture file to pixels.
//!
//! In: a PNG, JPEG, BMP or WebP file or its bytes, recognised by content, never by name. Out: a decoded picture, upright
//! according to its EXIF orientation, or the reason why not. The size is checked from the header before any pixel is
//! allocated. It does not change pixels: see [`crate::preprocess`].

mod jpeg;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::error::LimitErrorKind;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use self::jpeg::Jpeg;
use crate::picture_file::{self, PictureFileError};

/// Most bytes that a PNG file's descriptions, such as its texts, or one of its rows may take in memory; a text takes up to three times its
/// length. A colour profile that takes more is passed over, and of texts there are no such in good files.
pub const PNG_SIDE_BYTES: u64 = 64 << 20;

/// Endings of picture files, the second line of kinds that are not read.
const ENDINGS: [&str; 13] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "bmp", "webp", //
    "avif", "gif", "heic", "heif", "tif", "tiff",
];

/// Whether a file has a picture's name. That of a kind that is not read counts as well, so that whoever goes through a folder
/// hears of it. Only the content decides what is decoded.
pub fn is_named_as_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// How large a picture may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most pixels (width times height); 64 million by default.
    pub pixels: u64,
    /// Longest side in pixels; 65,535 by default.
    pub side_px: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { pixels: 64_000_000, side_px: 65_535 }
    }
}

/// Why bytes did not become a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The content is not one of the formats that are read, or of a kind of these that is not, such as a lossless JPEG.
    #[error("the content is not a PNG, JPEG, BMP or WebP picture of a kind that is read")]
    NotAnImage,
    /// The content is of a format that is known and not read.
    #[error("the content is a picture of the format {format}, which is not read: convert it to PNG or JPEG")]
    OtherFormat {
        /// Such as `GIF`.
        format: String,
    },
    /// The content is a film, or sound in the same kind of file.
    #[error("the content is a film or sound, not a picture")]
    Film,
    /// The header announces more pixels than the limits allow.
    #[error(
        "the picture is {width} x {height} pixels, and may have {} pixels in all and {} a side: make it smaller",
        limits.pixels, limits.side_px
    )]
    TooLarge {
        /// Width from the header.
        width: u32,
        /// Height from the header.
        height: u32,
        /// The limits, of which it breaks one.
        limits: DecodeLimits,
    },
    /// The format is known, and the content broken off, not enough, or without sense. Only PNG has checksums: elsewhere,
    /// changed bytes that make sense all the same are other pixels.
    #[error("the {format} picture is damaged: {detail}")]
    Damaged {
        /// Name of the format.
        format: &'static str,
        /// The decoder's words.
        detail: String,
    },
}

impl DecodeError {
    /// The kind of error in one word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotAnImage | Self::OtherFormat { .. } | Self::Film => "not_an_image",
            Self::TooLarge { .. } => "too_large",
            Self::Damaged { .. } => "damaged",
        }
    }
}

/// Why there is no picture of a file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file was not read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: PictureFileError,
    },
    /// Its content was not decoded.
    #[error("{}: {error}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: DecodeError,
    },
}

impl OpenError {
    /// The kind of error in one word, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { error, .. } => error.code(),
            Self::Decode { error, .. } => error.code(),
        }
    }
}

/// Reads and decodes a picture's file: what it is, its content says, whatever its name ends in, and it is turned upright by its
/// EXIF orientation.
///
/// # Errors
/// A file that cannot be read or decoded; the message names it.
pub fn open(path: &Path, limits: &DecodeLimits) -> Result<DynamicImage, OpenError> {
    let bytes = picture_file::read_named(path).map_err(|error| OpenError::File { path: path.to_owned(), error })?;
    decode(&bytes, limits).map_err(|error| OpenError::Decode { path: path.to_owned(), error })
}

/// Decodes a picture, and turns it upright by its EXIF orientation.
///
/// # Errors
/// See [`DecodeError`]; no input makes it panic.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<DynamicImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let Ok(format) = image::guess_format(bytes) else { return Err(base_media(bytes)) };
    let Some(name) = format_name(format) else {
        let format = format.extensions_str().first().unwrap_or(&"").to_uppercase();
        return Err(DecodeError::OtherFormat { format });
    };
    unless_it_panics(name, || read(bytes, format, name, limits))
}

/// Other people's decoders meet what they have not been tried with.
fn unless_it_panics<T>(format: &'static str, read: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(DecodeError::Damaged { format, detail: "its decoder gave up".to_owned() }))
}

fn read(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    limits: &DecodeLimits,
) -> Result<DynamicImage, DecodeError> {
    let unusable = |error: ImageError| match error {
        ImageError::Unsupported(_) => DecodeError::NotAnImage,
        other => DecodeError::Damaged { format: name, detail: other.to_string() },
    };
    let mut decoder: Box<dyn ImageDecoder + '_> = if format == ImageFormat::Jpeg {
        if !jpeg::is_read(bytes) {
            return Err(DecodeError::NotAnImage);
        }
        let cut_off = || DecodeError::Damaged { format: name, detail: "it ends before its end marker".to_owned() };
        Box::new(Jpeg::new(bytes, jpeg::end(bytes).ok_or_else(cut_off)?).map_err(unusable)?)
    } else {
        let mut allocation = Limits::no_limits();
        allocation.max_alloc = Some(PNG_SIDE_BYTES);
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(allocation);
        Box::new(reader.into_decoder().map_err(unusable)?)
    };
    let (width, height) = decoder.dimensions();
    let too_large = DecodeError::TooLarge { width, height, limits: *limits };
    if u64::from(width) * u64::from(height) > limits.pixels || width.max(height) > limits.side_px {
        return Err(too_large);
    }
    if format == ImageFormat::WebP && largest_lossy_frame(bytes) > u64::from(width) * u64::from(height) {
        let detail = "a frame is larger than the picture".to_owned();
        return Err(DecodeError::Damaged { format: name, detail });
    }
    // A damaged EXIF block does not spoil the pixels.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| match error {
        ImageError::Limits(ref inner) if inner.kind() == LimitErrorKind::InsufficientMemory => too_large,
        other => unusable(other),
    })?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Pixels of the largest lossy frame in a WebP file; 0 if there is none. Its decoder takes memory for the size that the
/// frame's own header gives before it compares that with the picture's (RFC 6386, section 9.1).
fn largest_lossy_frame(bytes: &[u8]) -> u64 {
    let frames = bytes.windows(18).filter(|chunk| chunk.starts_with(b"VP8 ") && chunk[11..14] == [0x9d, 0x01, 0x2a]);
    let side = |low: u8, high: u8| u64::from(u16::from_le_bytes([low, high]) & 0x3fff);
    frames.map(|chunk| side(chunk[14], chunk[15]) * side(chunk[16], chunk[17])).max().unwrap_or(0)
}

/// What the bytes are that no picture begins with: perhaps a file of ISO's base media format (ISO/IEC 14496-12, section 4.3),
/// whose kind stands at its beginning.
fn base_media(bytes: &[u8]) -> DecodeError {
    let format = match (bytes.get(4..8), bytes.get(8..12)) {
        (Some(b"ftyp"), Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx")) => "HEIC",
        (Some(b"ftyp"), Some(b"avif" | b"avis")) => "AVIF",
        // Of both kinds.
        (Some(b"ftyp"), Some(b"mif1" | b"msf1")) => "HEIF",
        (Some(b"ftyp"), Some(b"crx ")) => "CR3",
        (Some(b"ftyp"), Some(_)) => return DecodeError::Film,
        _ => return DecodeError::NotAnImage,
    };
    DecodeError::OtherFormat { format: format.to_owned() }
}

/// The names of the formats that are read.
fn format_name(format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Png => Some("PNG"),
        ImageFormat::Jpeg => Some("JPEG"),
        ImageFormat::Bmp => Some("BMP"),
        ImageFormat::WebP => Some("WebP"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use proptest::prelude::*;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let picture = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, (x * y % 251) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(picture).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    const FORMATS: [ImageFormat; 4] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP];

    #[test]
    fn texts_of_many_megabytes_do_not_spoil_a_picture() {
        let mut bytes = encoded(ImageFormat::Png);
        // What editing programs leave of a picture's history, between the header and the pixels.
        let text = [b"tEXtHistory\0".to_vec(), vec![b'x'; 9 << 20]].concat();
        let chunk = [&(text.len() as u32 - 4).to_be_bytes()[..], &text, &crc32(&text).to_be_bytes()].concat();
        bytes.splice(33..33, chunk);
        let picture = decode(&bytes, &DecodeLimits::default()).unwrap();
        assert_eq!(picture, decode(&encoded(ImageFormat::Png), &DecodeLimits::default()).unwrap());
    }

    /// A PNG of one colour type 0 (grey) header with the given sides and no pixel data.
    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut chunk = b"IHDR".to_vec();
        chunk.extend(width.to_be_bytes());
        chunk.extend(height.to_be_bytes());
        chunk.extend([8, 0, 0, 0, 0]);
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
        bytes.extend(&chunk);
        bytes.extend(crc32(&chunk).to_be_bytes());
        bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        bytes
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
    }

    #[test]
    fn every_format_is_read_by_content() {
        for format in FORMATS {
            let picture = decode(&encoded(format), &DecodeLimits::default()).unwrap();
            assert_eq!((picture.width(), picture.height()), (40, 30), "{format:?}");
        }
    }

    #[test]
    fn a_lossy_frame_is_no_larger_than_its_picture() {
        // 4 x 3 pixels, red.
        let lossy: &[u8] = b"RIFF2\x00\x00\x00WEBPVP8 &\x00\x00\x00p\x01\x00\x9d\x01*\x04\x00\x03\x00\x07@\x96%\xa0\x02t\x01@\x00\x00\xfe\xe4\x01c\x09\xa4\x9d\x1f\xcc\xdf\x85\x1f'P\x00\x00\x00";
        let picture = decode(lossy, &DecodeLimits::default()).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (4, 3));
        assert!(picture.pixels().all(|pixel| pixel[0] > 150 && pixel[1] < 90), "{picture:?}");

        // In an extended file of 4 x 3 pixels, a frame that says of itself that it has 16383 x 16383.
        let mut chunk = lossy[12..].to_vec();
        chunk[14..18].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
        let canvas = b"VP8X\x0a\0\0\0\0\0\0\0\x03\0\0\x02\0\0";
        let length = (4 + canvas.len() + chunk.len()) as u32;
        let file = [b"RIFF", &length.to_le_bytes()[..], b"WEBP", canvas, &chunk].concat();
        let error = decode(&file, &DecodeLimits::default()).unwrap_err();
        assert_eq!((error.code(), error.to_string().contains("a frame is larger")), ("damaged", true), "{error}");
        // With its own size, it is the same picture.
        let file = [b"RIFF", &length.to_le_bytes()[..], b"WEBP", canvas, &lossy[12..]].concat();
        assert_eq!(decode(&file, &DecodeLimits::default()).unwrap().to_rgb8(), picture);
    }

    #[test]
    fn lossless_formats_keep_the_pixels() {
        let grey = GrayImage::from_fn(9, 7, |x, y| Luma([(x * 20 + y) as u8]));
        let mut bytes = Cursor::new(Vec::new());
        grey.write_to(&mut bytes, ImageFormat::Png).unwrap();
        assert_eq!(decode(bytes.get_ref(), &DecodeLimits::default()).unwrap().to_luma8(), grey);
    }

    /// A JPEG with an EXIF block that says only how the camera was held.
    fn jpeg_held(orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let jpeg = encoded(ImageFormat::Jpeg);
        let length = (exif.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xFF, 0xE1], &length, &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn pictures_are_turned_upright() {
        let upright = decode(&jpeg_held(1), &DecodeLimits::default()).unwrap();
        assert_eq!((upright.width(), upright.height()), (40, 30));
        for (orientation, turned) in [
            (2, upright.fliph()),
            (3, upright.rotate180()),
            (4, upright.flipv()),
            (5, upright.rotate90().fliph()),
            (6, upright.rotate90()),
            (7, upright.rotate270().fliph()),
            (8, upright.rotate270()),
        ] {
            assert_eq!(decode(&jpeg_held(orientation), &DecodeLimits::default()).unwrap(), turned, "{orientation}");
        }
        // What makes no sense spoils nothing.
        assert_eq!(decode(&jpeg_held(99), &DecodeLimits::default()).unwrap(), upright);
    }

    #[test]
    fn deep_transparent_and_grey_pixels_are_read_and_classified_alike() {
        let grey = GrayImage::from_fn(5, 4, |x, y| Luma([(x * 50 + y) as u8]));
        let same = DynamicImage::from(grey.clone());
        let pictures = [
            same.to_luma16().into(),
            same.to_rgb16().into(),
            same.to_rgba16().into(),
            same.to_rgba8().into(),
            same.to_luma_alpha8().into(),
            same.to_luma_alpha16().into(),
            same,
        ];
        for picture in pictures {
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
            let read = decode(bytes.get_ref(), &DecodeLimits::default()).unwrap();
            assert_eq!(read, picture);
            assert_eq!(crate::preprocess::grayscale(&read), grey, "{:?}", picture.color());
        }
    }

    #[test]
    fn the_inks_of_print_become_colours() {
        let picture = decode(include_bytes!("../tests/golden/cmyk.jpg"), &DecodeLimits::default()).unwrap();
        let Rgb([red, green, blue]) = *picture.to_rgb8().get_pixel(8, 8);
        assert!(red > 240 && green.abs_diff(127) < 12 && blue < 15, "{red} {green} {blue}");
    }

    #[test]
    fn broken_off_files_are_damaged() {
        for format in FORMATS {
            let bytes = encoded(format);
            for percent in [30, 60, 95] {
                let error = decode(&bytes[..bytes.len() * percent / 100], &DecodeLimits::default()).unwrap_err();
                assert!(matches!(error, DecodeError::Damaged { .. }), "{format:?} {percent}: {error}");
            }
        }
    }

    #[test]
    fn a_jpeg_whose_scan_makes_no_sense_is_damaged() {
        let whole = encoded(ImageFormat::Jpeg);
        let scan = whole.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
        let middle = (scan + whole.len()) / 2;
        // Codes that there are not, and bytes that are missing.
        let (before, after) = (&whole[..middle], &whole[middle + 80..]);
        for between in [&[0xFF, 0, 0xFF, 0, 0xFF, 0][..], &[]] {
            let bytes = [before, between, after].concat();
            assert!(image::load_from_memory(&bytes).is_ok(), "it is refused whoever reads it");
            let error = decode(&bytes, &DecodeLimits::default()).err();
            assert!(matches!(error, Some(DecodeError::Damaged { .. })), "{between:?}: {error:?}");
        }
    }

    /// Of 40 x 30 pixels, as libjpeg writes them: in several scans, and with a restart marker behind every other block.
    #[test]
    fn progressive_jpegs_and_those_with_restarts_are_read_whole_or_not_at_all() {
        let progressive = include_bytes!("../tests/golden/progressive.jpg");
        let restarts = include_bytes!("../tests/golden/restarts.jpg");
        for whole in [&progressive[..], restarts] {
            assert_eq!(decode(whole, &DecodeLimits::default()).unwrap(), image::load_from_memory(whole).unwrap());
            // Broken off in the middle of the last scan, with the end marker put back.
            let scan = whole.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
            let cut = [&whole[..(scan + whole.len()) / 2], &[0xFF, 0xD9]].concat();
            let error = decode(&cut, &DecodeLimits::default()).err();
            assert!(matches!(error, Some(DecodeError::Damaged { .. })), "{error:?}");
        }
    }

    #[test]
    fn a_jpeg_need_not_be_perfect() {
        let whole = encoded(ImageFormat::Jpeg);
        let plain = decode(&whole, &DecodeLimits::default()).unwrap();
        assert_eq!(plain, image::load_from_memory(&whole).unwrap());
        let scan = whole.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
        // Zeros before a marker, fill bytes before it, and a preview behind the end.
        for (place, more) in [(scan, &[0; 9][..]), (scan, &[0xFF; 3]), (whole.len(), &whole)] {
            let bytes = [&whole[..place], more, &whole[place..]].concat();
            assert_eq!(decode(&bytes, &DecodeLimits::default()).as_ref(), Ok(&plain), "{place}");
        }
    }

    #[test]
    fn a_jpeg_of_a_kind_that_is_not_read_is_not_damaged() {
        let mut bytes = encoded(ImageFormat::Jpeg);
        let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        // Lossless, with arithmetic coding, and of 12 bits.
        for (kind, bits) in [(0xC3, 8), (0xC9, 8), (0xC1, 12)] {
            (bytes[frame + 1], bytes[frame + 4]) = (kind, bits);
            assert_eq!(decode(&bytes, &DecodeLimits::default()), Err(DecodeError::NotAnImage), "{kind:x} {bits}");
        }
    }

    #[test]
    fn a_decoder_that_panics_has_met_a_damaged_file() {
        let error = unless_it_panics::<()>("PNG", || panic!("a decoder's defect")).unwrap_err();
        assert_eq!(error.code(), "damaged");
    }

    #[test]
    fn text_and_nothing_are_not_images() {
        assert_eq!(decode(b"dear diary, no pixels here", &DecodeLimits::default()), Err(DecodeError::NotAnImage));
        assert_eq!(decode(b"", &DecodeLimits::default()), Err(DecodeError::Empty));
    }

    #[test]
    fn formats_that_are_not_read_are_named() {
        for (bytes, name) in [
            (&b"GIF89a\x01\0\x01\0\0\0\0;"[..], "GIF"),
            (b"II*\0\x08\0\0\0", "TIFF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "HEIF"),
            (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "AVIF"),
        ] {
            let error = decode(bytes, &DecodeLimits::default()).unwrap_err();
            let expected =
                format!("the content is a picture of the format {name}, which is not read: convert it to PNG or JPEG");
            assert_eq!((error.to_string(), error.code()), (expected, "not_an_image"));
        }
        let film = decode(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", &DecodeLimits::default()).unwrap_err();
        assert_eq!(
            (film.to_string(), film.code()),
            ("the content is a film or sound, not a picture".to_owned(), "not_an_image")
        );
        assert_eq!(decode(b"\0\0\0\x18ftyp", &DecodeLimits::default()), Err(DecodeError::NotAnImage));
    }

    #[test]
    fn a_huge_header_is_refused_before_allocation() {
        let error = decode(&png_header(30_000, 30_000), &DecodeLimits::default()).unwrap_err();
        assert_eq!(error, DecodeError::TooLarge { width: 30_000, height: 30_000, limits: DecodeLimits::default() });
        let error = decode(&png_header(1_000_000, 2), &DecodeLimits::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the picture is 1000000 x 2 pixels, and may have 64000000 pixels in all and 65535 a side: make it smaller"
        );
        let tiny = DecodeLimits { pixels: 1199, ..DecodeLimits::default() };
        for format in FORMATS {
            let error = decode(&encoded(format), &tiny).unwrap_err();
            assert!(matches!(error, DecodeError::TooLarge { .. }), "{format:?}: {error}");
        }
    }

    /// What looks into the bytes here is not under the net that is spread for the decoders.
    fn decode_without_a_panic(bytes: &[u8]) {
        let _ = (jpeg::is_read(bytes), jpeg::end(bytes), largest_lossy_frame(bytes));
        let _ = decode(bytes, &DecodeLimits { pixels: 1_000_000, side_px: 4096 });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn random_bytes_never_panic(format in 0..4_usize, tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = encoded(FORMATS[format])[..16].to_vec();
            bytes.extend(tail);
            decode_without_a_panic(&bytes);
        }

        #[test]
        fn mutated_files_never_panic(
            format in 0..4_usize,
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        ) {
            let mut bytes = encoded(FORMATS[format]);
            for (place, value) in changes {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            decode_without_a_panic(&bytes);
        }
    }
}
