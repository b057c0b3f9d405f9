//! The memory that pictures take while they are worked on.
//!
//! In: pictures, not decoded yet. Out: a share of what all of them may take together, as large as the header says that this
//! one will need. Not counted is what a face finder works with, some 30 MB a thread, and what texts in a PNG file take while its header is read.

use std::io::Cursor;
use std::panic::catch_unwind;
use std::sync::{Condvar, Mutex, PoisonError};

use image::{ImageDecoder, ImageFormat, ImageReader, Limits, guess_format};
use vultus::decode::{DecodeLimits, PNG_SIDE_BYTES};

use crate::error::ApiError;

/// A picture is there twice as it was decoded, when it is turned upright or a face is cut out...
const COPIES: u64 = 2;

/// ...and besides as RGBA and as grey while it becomes grey; as many bytes does a decoder need beside the picture.
const MORE_PIXEL_BYTES: u64 = 5;

/// Between the two directions of scaling, a pixel is four `f32`.
const SCALED_PIXEL_BYTES: u64 = 16;

/// What all pictures may take together.
#[derive(Debug)]
pub(super) struct PictureMemory {
    all: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    memory: &'a PictureMemory,
    bytes: u64,
}

impl PictureMemory {
    pub fn new(bytes: usize) -> Self {
        let all = bytes as u64;
        Self { all, free: Mutex::new(all), freed: Condvar::new() }
    }

    /// Waits until there is as much as a picture needs, of which faces become pictures of `side` pixels.
    ///
    /// # Errors
    /// It needs more than all pictures may have.
    pub fn share_for(&self, picture: &[u8], limits: &DecodeLimits, side: u32) -> Result<Share<'_>, ApiError> {
        self.take(needed(picture, limits, side))
    }

    pub fn take(&self, bytes: u64) -> Result<Share<'_>, ApiError> {
        if bytes > self.all {
            return Err(ApiError::memory(bytes, self.all));
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = self.freed.wait_while(free, |free| *free < bytes);
        *enough.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Ok(Share { memory: self, bytes })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.memory.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.memory.freed.notify_all();
    }
}

/// Most bytes that a picture takes while it is worked on: none where its header is enough to refuse it, or cannot be read,
/// as decoding begins with it.
fn needed(bytes: &[u8], limits: &DecodeLimits, side: u32) -> u64 {
    let readable = |format: &ImageFormat| format.reading_enabled();
    let Some(format) = guess_format(bytes).ok().filter(readable) else { return 0 };
    let header = || {
        let mut allocation = Limits::no_limits();
        // As decoding reads it.
        allocation.max_alloc = Some(PNG_SIDE_BYTES);
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        reader.limits(allocation);
        let decoder = reader.into_decoder().ok()?;
        let (width, height) = decoder.dimensions();
        Some((width, height, decoder.total_bytes()))
    };
    let Ok(Some((width, height, decoded))) = catch_unwind(header) else { return 0 };
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels {
        return 0;
    }
    // A face is as long as the picture at most, and is scaled to the side of the network's input in one direction first. Which one
    // that is depends on how the picture is turned upright.
    let scaled = u64::from(width.max(height)).saturating_mul(side.into());
    let parts = [(decoded, COPIES), (pixels, MORE_PIXEL_BYTES), (scaled, SCALED_PIXEL_BYTES)];
    parts.into_iter().fold(0, |sum, (count, bytes)| sum.saturating_add(count.saturating_mul(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::DynamicImage;

    #[test]
    fn a_share_is_waited_for_and_given_back() {
        let memory = PictureMemory::new(10);
        let (first, second) = (memory.take(6).unwrap(), memory.take(4).unwrap());
        std::thread::scope(|scope| {
            let third = scope.spawn(|| memory.take(5).unwrap().bytes);
            drop(second);
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!third.is_finished(), "5 of 4 bytes");
            drop(first);
            assert_eq!(third.join().unwrap(), 5);
        });
        assert_eq!(memory.take(11).unwrap_err().code(), "too_large");
        assert!(memory.take(10).is_ok(), "all of it is free again");
    }

    #[test]
    fn what_a_picture_needs_is_known_from_its_header() {
        let limits = DecodeLimits { pixels: 5400, ..DecodeLimits::default() };
        let encoded = |picture: DynamicImage, format| {
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, format).unwrap();
            bytes.into_inner()
        };
        let png = |picture| encoded(picture, ImageFormat::Png);
        let needed = |bytes: &[u8], limits: &DecodeLimits| needed(bytes, limits, 10);
        // Twice as decoded, and five bytes a pixel; and what scaling its longer side to ten pixels takes.
        let scaled = 90 * 10 * 16;
        assert_eq!(needed(&png(DynamicImage::new_luma8(90, 60)), &limits), 5400 * 7 + scaled);
        assert_eq!(needed(&png(DynamicImage::new_luma8(60, 90)), &limits), 5400 * 7 + scaled);
        assert_eq!(needed(&png(DynamicImage::new_rgba16(90, 60)), &limits), 5400 * 21 + scaled);
        assert_eq!(needed(&png(DynamicImage::new_luma8(5400, 1)), &limits), 5400 * (7 + 160));
        for format in [ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP] {
            let bytes = encoded(DynamicImage::new_rgb8(90, 60), format);
            assert_eq!(needed(&bytes, &limits), 5400 * 11 + scaled, "{format:?}");
        }
        // Texts in front of the pixels hide nothing.
        let mut long = png(DynamicImage::new_luma8(90, 60));
        let text = [&b"tEXtHistory\0"[..], &vec![b'x'; 9 << 20]].concat();
        // A reader that does not check what it passes over sees no difference.
        let chunk = [&(text.len() as u32 - 4).to_be_bytes()[..], &text, &[0; 4]].concat();
        long.splice(33..33, chunk);
        assert_eq!(needed(&long, &limits), 5400 * 7 + scaled);
        // These are not decoded.
        assert_eq!(needed(&png(DynamicImage::new_luma8(90, 61)), &limits), 0);
        for bytes in [&b"dear diary"[..], b"GIF89a\x01\0\x01\0\0\0\0;", b""] {
            assert_eq!(needed(bytes, &limits), 0);
        }
        assert_eq!(needed(&png(DynamicImage::new_luma8(90, 60))[..30], &limits), 0);
    }
}
