//! Picture files, good and bad.

use std::io::Cursor;

use image::{GrayImage, ImageFormat, Luma};

/// A picture of `side` x `side` pixels that differs from number to number.
pub fn png(number: usize, side: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| Luma([((x * 5 + y * 3) as usize * (number + 1) % 251) as u8]);
    let mut bytes = Cursor::new(Vec::new());
    GrayImage::from_fn(side, side, pixel).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A PNG that ends in the middle.
pub fn truncated_png() -> Vec<u8> {
    let mut bytes = png(7, 48);
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// A small PNG whose header announces 30,000 x 30,000 pixels.
pub fn huge_png() -> Vec<u8> {
    const HEADER: std::ops::Range<usize> = 12..29; // its name IHDR, then 13 bytes that begin with width and height
    let mut bytes = png(1, 8);
    bytes[16..20].copy_from_slice(&30_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&30_000_u32.to_be_bytes());
    let checksum = crc32(&bytes[HEADER]);
    bytes[HEADER.end..HEADER.end + 4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// Three unusable files and what must be said of each.
pub fn bad_pictures() -> [(&'static str, Vec<u8>, &'static str); 3] {
    [
        ("broken.png", truncated_png(), "damaged"),
        ("text.png", b"no picture, only a text\n".to_vec(), "not a PNG"),
        ("wide.png", huge_png(), "30000 x 30000"),
    ]
}
