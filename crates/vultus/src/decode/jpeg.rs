//! JPEG files, with an error where the decoder of the crate `image` would go on.
//!
//! In: the bytes of a file. Out: a decoder as `image`'s own are. `image` reads by the same crate, and leaves grey what makes
//! no sense, as browsers do. Here the data have to make sense, and there have to be enough of them; headers need not be
//! perfect, because those of cameras are not. More data than the pixels need are not noticed.

use image::error::{DecodingError, ImageError, ImageResult};
use image::{ColorType, ImageDecoder, ImageFormat};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;

/// A JPEG whose headers have been read.
pub(super) struct Jpeg {
    decoder: JpegDecoder<ZCursor<Vec<u8>>>,
    width: u32,
    height: u32,
    color: ColorType,
}

/// Behind the data: no code consists of ones alone. The end marker itself makes the decoder go on with zeros, which are codes.
const ONES_AND_END: [u8; 18] = [0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0xD9];

impl Jpeg {
    /// Reads the headers of a file that has its end marker at `end`.
    pub(super) fn new(bytes: &[u8], end: usize) -> ImageResult<Self> {
        let bytes = [&bytes[..end], &ONES_AND_END].concat();
        let lenient =
            DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), lenient);
        decoder.decode_headers().map_err(damaged)?;
        let (width, height) = decoder.info().map_or((0, 0), |info| (info.width.into(), info.height.into()));
        let (space, color) = match decoder.input_colorspace() {
            Some(ColorSpace::Luma) => (ColorSpace::Luma, ColorType::L8),
            _ => (ColorSpace::RGB, ColorType::Rgb8),
        };
        decoder.set_options(lenient.set_strict_mode(true).jpeg_set_out_colorspace(space));
        Ok(Self { decoder, width, height, color })
    }
}

impl ImageDecoder for Jpeg {
    fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn color_type(&self) -> ColorType {
        self.color
    }

    fn exif_metadata(&mut self) -> ImageResult<Option<Vec<u8>>> {
        Ok(self.decoder.exif().cloned())
    }

    fn read_image(mut self, pixels: &mut [u8]) -> ImageResult<()> {
        self.decoder.decode_into(pixels).map_err(damaged)
    }

    fn read_image_boxed(self: Box<Self>, pixels: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(pixels)
    }
}

fn damaged(error: zune_jpeg::errors::DecodeErrors) -> ImageError {
    ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), error))
}

/// Where the end marker is, if there is one.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    markers(bytes).find_map(|(marker, position)| (marker == END_OF_IMAGE).then_some(position))
}

/// Whether the pixels are of a kind that is read, and not lossless, for example, with arithmetic coding or of 12 bits: the decoder
/// takes such files for broken ones.
pub(super) fn is_read(bytes: &[u8]) -> bool {
    // Between them are those for tables, and one for nothing yet.
    let is_frame = |marker| matches!(marker, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF);
    // Behind the marker and the length of what it begins are the bits of a sample.
    let bits = |position: usize| bytes.get(position + 4).copied();
    markers(bytes)
        .find(|&(marker, _)| is_frame(marker))
        .is_none_or(|(kind, position)| kind <= 0xC2 && bits(position).is_none_or(|bits| bits == 8))
}

/// The markers that end a file or have a length, each with its place, as far as they make sense.
fn markers(bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let (mut position, mut in_scan) = (2, false);
    std::iter::from_fn(move || {
        loop {
            let &[first, marker] = bytes.get(position..position + 2)?.first_chunk()?;
            let found = position;
            match (first, marker) {
                (0xFF, END_OF_IMAGE) => {
                    position = bytes.len();
                    return Some((marker, found));
                }
                // Fill bytes before a marker.
                (0xFF, 0xFF) => position += 1,
                // Markers without a length, and ones among the data.
                (0xFF, 0x01 | 0xD0..=0xD8) => position += 2,
                (0xFF, 0) if in_scan => position += 2,
                (0xFF, _) => {
                    let length = bytes.get(position + 2..position + 4)?.first_chunk()?;
                    position += 2 + usize::from(u16::from_be_bytes(*length)).max(2);
                    in_scan = marker == START_OF_SCAN;
                    return Some((marker, found));
                }
                _ => position += bytes[position..].iter().position(|&byte| byte == 0xFF)?,
            }
        }
    })
}
