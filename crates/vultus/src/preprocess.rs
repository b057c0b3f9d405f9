//! From a decoded picture to the numbers a network reads. The only preprocessing of the product: training, evaluation
//! and prediction all come through here, and the settings travel with the model; a face in a photograph is cut out of it at the
//! network's size by `faces` before.
//!
//! In: a decoded picture that shows one face. Out: an 8-bit grey image of the network's input size, and its pixels as
//! `f32`. It does not find faces and does not augment.

use image::{DynamicImage, GrayImage, imageops};
use serde::{Deserialize, Serialize};

/// Longest side of a network input that is accepted.
pub(crate) const MAXIMUM_SIDE_PX: u32 = 2048;

/// How pixels become numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PixelScaling {
    /// 0..255 as they are (the course report's choice).
    #[default]
    Raw,
    /// Divided by 255: 0..1.
    Unit,
    /// (pixel / 255 - mean) / standard deviation.
    Standard {
        /// Mean of the unit pixels.
        mean: f32,
        /// Standard deviation of the unit pixels, above 0.
        std_dev: f32,
    },
}

/// What happens to a picture before the network sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocessing {
    /// Width of the network's input in pixels.
    pub width: u32,
    /// Height of the network's input in pixels.
    pub height: u32,
    /// How pixels become numbers.
    pub pixels: PixelScaling,
}

impl Default for Preprocessing {
    fn default() -> Self {
        Self { width: 48, height: 48, pixels: PixelScaling::Raw }
    }
}

/// Why preprocessing settings are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PreprocessingError {
    /// A side of zero or beyond the limit.
    #[error("preprocessing.{key} is {value}: it must be between 1 and {MAXIMUM_SIDE_PX} pixels")]
    Side {
        /// `width` or `height`.
        key: &'static str,
        /// The value given.
        value: u32,
    },
    /// A mean or standard deviation that gives no finite numbers.
    #[error(
        "preprocessing.pixels.standard has mean {mean} and std_dev {std_dev}: \
         both must be finite, and std_dev above 0 and not so small that pixels become infinite"
    )]
    Standard {
        /// The mean given.
        mean: f32,
        /// The standard deviation given.
        std_dev: f32,
    },
}

impl Preprocessing {
    /// Checks settings that came from a file.
    ///
    /// # Errors
    /// A side outside 1..=2048 pixels, or a scaling that gives no finite numbers.
    pub fn validate(&self) -> Result<(), PreprocessingError> {
        for (key, value) in [("width", self.width), ("height", self.height)] {
            if value == 0 || value > MAXIMUM_SIDE_PX {
                return Err(PreprocessingError::Side { key, value });
            }
        }
        match self.pixels {
            PixelScaling::Standard { mean, std_dev } => {
                // A tiny deviation makes pixels infinite.
                let (factor, offset) = self.factor_and_offset();
                let usable =
                    std_dev > 0.0 && std_dev.is_finite() && (255.0 * factor + offset).is_finite() && offset.is_finite();
                if usable { Ok(()) } else { Err(PreprocessingError::Standard { mean, std_dev }) }
            }
            _ => Ok(()),
        }
    }

    /// Number of values of one face: width times height.
    pub fn values(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// Grey, and resized to [`width`](Self::width) x [`height`](Self::height) if it has another size. The whole
    /// picture is used: its proportions are not kept. Resizing is a triangle filter widened by the scale, so that
    /// shrinking averages instead of skipping pixels.
    ///
    /// # Panics
    /// If the picture has no pixels.
    pub fn to_face(&self, picture: &DynamicImage) -> GrayImage {
        assert!(picture.width() > 0 && picture.height() > 0, "a picture without pixels shows no face");
        let grey = grayscale(picture);
        if grey.dimensions() == (self.width, self.height) {
            grey
        } else {
            imageops::resize(&grey, self.width, self.height, imageops::FilterType::Triangle)
        }
    }

    /// Writes the pixels of a face, row by row, as the numbers that the network reads.
    ///
    /// # Panics
    /// If `values` has not one place for each pixel of `face`.
    pub fn fill(&self, face: &GrayImage, values: &mut [f32]) {
        let pixels = face.as_raw();
        assert_eq!(pixels.len(), values.len(), "one value for each pixel");
        let (factor, offset) = self.factor_and_offset();
        for (value, &pixel) in values.iter_mut().zip(pixels) {
            *value = f32::from(pixel) * factor + offset;
        }
    }

    /// What a pixel of 0 to 255 is multiplied by, and what is added then.
    pub(crate) fn factor_and_offset(&self) -> (f32, f32) {
        match self.pixels {
            PixelScaling::Raw => (1.0, 0.0),
            PixelScaling::Unit => (1.0 / 255.0, 0.0),
            PixelScaling::Standard { mean, std_dev } => (1.0 / (255.0 * std_dev), -mean / std_dev),
        }
    }
}

/// 8-bit luma: 0.299 red + 0.587 green + 0.114 blue (the weights of JPEG and of Pillow's `L`). 16-bit channels are
/// reduced to 8 bits first; transparent pixels are laid over black. A grey picture keeps its pixels.
pub fn grayscale(picture: &DynamicImage) -> GrayImage {
    match picture {
        DynamicImage::ImageLuma8(grey) => grey.clone(),
        DynamicImage::ImageLuma16(_) => picture.to_luma8(),
        other if other.color().has_alpha() => from_pixels(
            other,
            other.to_rgba8().pixels().map(|pixel| {
                let [red, green, blue, alpha] = pixel.0;
                let over_black = u32::from(luma(red, green, blue)) * u32::from(alpha);
                ((over_black + 127) / 255) as u8
            }),
        ),
        other => from_pixels(other, other.to_rgb8().pixels().map(|pixel| luma(pixel.0[0], pixel.0[1], pixel.0[2]))),
    }
}

/// The colours of a transparent pixel that is laid over black.
pub(crate) fn over_black([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|colour| ((u32::from(colour) * u32::from(alpha) + 127) / 255) as u8)
}

/// A grey image of the size of `picture` from one value a pixel.
fn from_pixels(picture: &DynamicImage, values: impl Iterator<Item = u8>) -> GrayImage {
    let mut grey = GrayImage::new(picture.width(), picture.height());
    for (place, value) in grey.iter_mut().zip(values) {
        *place = value;
    }
    grey
}

/// The luma weights in 16-bit fixed point, rounded; they add up to 65536, so that grey stays grey.
fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 32_768) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
    use proptest::prelude::*;

    #[test]
    fn luma_agrees_with_pillow() {
        // python -c "from PIL import Image
        // for c in [(255,0,0),(0,255,0),(0,0,255),(12,200,77),(255,255,255)]:
        //     print(c, Image.new('RGB',(1,1),c).convert('L').getpixel((0,0)))"
        for (colour, expected) in
            [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([12, 200, 77], 130), ([255, 255, 255], 255)]
        {
            let picture = DynamicImage::from(RgbImage::from_pixel(2, 1, Rgb(colour)));
            assert_eq!(grayscale(&picture).as_raw(), &[expected; 2], "{colour:?}");
        }
    }

    #[test]
    fn depth_and_alpha_are_defined() {
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(1, 1, Luma([0x8080]));
        assert_eq!(grayscale(&DynamicImage::from(deep)).as_raw(), &[0x80]);
        let half = DynamicImage::from(RgbaImage::from_pixel(1, 1, Rgba([200, 200, 200, 128])));
        assert_eq!(grayscale(&half).as_raw(), &[100]);
        let clear: ImageBuffer<LumaA<u8>, Vec<u8>> = ImageBuffer::from_pixel(1, 1, LumaA([255, 0]));
        assert_eq!(grayscale(&DynamicImage::from(clear)).as_raw(), &[0]);
    }

    #[test]
    fn shrinking_averages_instead_of_skipping() {
        let stripes = GrayImage::from_fn(480, 480, |x, _| Luma([if x % 2 == 0 { 0 } else { 255 }]));
        let face = Preprocessing::default().to_face(&DynamicImage::from(stripes));
        assert_eq!(face.dimensions(), (48, 48));
        assert!(face.iter().all(|&pixel| (120..=135).contains(&pixel)), "{:?}", &face.as_raw()[..48]);
    }

    #[test]
    fn scalings_give_the_documented_numbers() {
        let face = GrayImage::from_raw(3, 1, vec![0, 51, 255]).unwrap();
        for (pixels, expected) in [
            (PixelScaling::Raw, [0.0, 51.0, 255.0]),
            (PixelScaling::Unit, [0.0, 0.2, 1.0]),
            (PixelScaling::Standard { mean: 0.5, std_dev: 0.25 }, [-2.0, -1.2, 2.0]),
        ] {
            let mut values = [f32::NAN; 3];
            Preprocessing { width: 3, height: 1, pixels }.fill(&face, &mut values);
            for (value, wanted) in values.iter().zip(expected) {
                assert!((value - wanted).abs() < 1e-6, "{pixels:?}: {values:?}");
            }
        }
    }

    #[test]
    fn settings_are_checked() {
        let read = |text: &str| serde_json::from_str::<Preprocessing>(text);
        assert_eq!(read("{}").unwrap(), Preprocessing::default());
        assert!(read(r#"{"widht": 48}"#).is_err());
        let standard = read(r#"{"pixels": {"standard": {"mean": 0.5, "std_dev": 0.0}}}"#).unwrap();
        assert!(matches!(standard.validate(), Err(PreprocessingError::Standard { .. })));
        // With the second one only the brightest pixels become infinite.
        for std_dev in [1e-42, 1e-40] {
            let pixels = PixelScaling::Standard { mean: 0.0, std_dev };
            let tiny = Preprocessing { pixels, ..Preprocessing::default() };
            assert!(matches!(tiny.validate(), Err(PreprocessingError::Standard { .. })));
        }
        let flat = Preprocessing { height: 0, ..Preprocessing::default() };
        assert_eq!(flat.validate(), Err(PreprocessingError::Side { key: "height", value: 0 }));
        assert_eq!(Preprocessing::default().validate(), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_picture_becomes_a_face_within_its_own_range(
            width in 1..90_u32, height in 1..90_u32, low in 0..200_u8, seed in any::<u8>()
        ) {
            let picture = GrayImage::from_fn(width, height, |x, y| {
                Luma([low + ((x * 31 + y * 17 + u32::from(seed)) % 56) as u8])
            });
            let settings = Preprocessing::default();
            let face = settings.to_face(&DynamicImage::from(picture));
            prop_assert_eq!(face.dimensions(), (48, 48));
            prop_assert!(face.iter().all(|pixel| (low..low + 56).contains(pixel)));
        }

        #[test]
        fn a_face_of_the_right_size_is_untouched(pixels in proptest::collection::vec(any::<u8>(), 48 * 48)) {
            let face = GrayImage::from_raw(48, 48, pixels).unwrap();
            prop_assert_eq!(Preprocessing::default().to_face(&DynamicImage::from(face.clone())), face);
        }
    }
}
