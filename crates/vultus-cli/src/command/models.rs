//! `vultus models`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use sha2::{Digest, Sha256};
use vultus::persist::write_atomically;

use super::check_new;
use crate::failure::Failure;
use crate::http;
use crate::message::say;
use crate::table::print;

/// No model that is offered is larger.
const LARGEST_MODEL: u64 = 64 << 20;

/// A model that can be downloaded.
struct Offer {
    name: &'static str,
    /// The file's name where it is installed.
    file: &'static str,
    /// Where it is, and the SHA-256 of what must come from there; tried in this order.
    homes: &'static [(&'static str, &'static str)],
    licence: &'static str,
}

const OFFERS: [Offer; 1] = [Offer {
    name: "yunet",
    file: "yunet.onnx",
    homes: &[
        // The authors' repository.
        (
            "https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/master/onnx/yunet_n_640_640.onnx",
            "25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
        ),
        // The same network, simplified, in OpenCV's collection.
        (
            "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
            "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        ),
    ],
    licence: "Apache-2.0 from its authors (github.com/ShiqiYu/libfacedetection.train), MIT from OpenCV (github.com/opencv/opencv_zoo)",
}];

/// Download models of others.
#[derive(clap::Subcommand)]
pub enum Models {
    /// Download a model, check it and install it.
    Get(Get),
}

#[derive(clap::Args)]
pub struct Get {
    /// Which: yunet, the face finder of --faces yunet.
    #[arg(value_name = "NAME", value_parser = OFFERS.map(|offer| offer.name))]
    name: String,
    /// Take it from this address; its checksum must be a known one.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Write it to this new file instead of the folder of installed models.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Models {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Get(get) => get.run(),
        }
    }
}

impl Get {
    fn run(self) -> Result<(), Failure> {
        let offer = OFFERS
            .iter()
            .find(|offer| offer.name == self.name)
            .ok_or_else(|| Failure::usage(anyhow!("there is no model {}", self.name)))?;
        if let Some(url) = self.from.as_deref().filter(|url| !http::is_url(url)) {
            return Err(Failure::usage(anyhow!(
                "--from {url} is no address that begins with http:// or https://; a file that you have goes to --face-model"
            )));
        }
        let out = match self.out {
            Some(out) => {
                check_new(&out)?;
                out
            }
            None => folder()?.join(offer.file),
        };
        let known: Vec<&str> = offer.homes.iter().map(|(_, checksum)| *checksum).collect();
        let homes: Vec<(&str, &[&str])> = match &self.from {
            Some(url) => vec![(url, &known)],
            None => offer
                .homes
                .iter()
                .zip(&known)
                .map(|((url, _), checksum)| (*url, std::slice::from_ref(checksum)))
                .collect(),
        };
        if let Ok(bytes) = fs_err::read(&out)
            && checked(bytes, &known).is_ok()
        {
            say(format_args!("{} is installed already", offer.name));
            return Ok(print(out.display())?);
        }
        let mut reasons = Vec::new();
        for (url, checksums) in homes {
            say(format_args!("downloading {url}"));
            match http::get(url, LARGEST_MODEL).and_then(|bytes| checked(bytes, checksums)) {
                Ok(bytes) => {
                    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                        fs_err::create_dir_all(folder)?;
                    }
                    write_atomically(&out, |file| file.write_all(&bytes))?;
                    say(format_args!("{}: {}", offer.name, offer.licence));
                    print(out.display())?;
                    return Ok(());
                }
                Err(reason) => {
                    reasons.push(format!("{url}: {reason}"));
                }
            }
        }
        Err(Failure::Run(anyhow!("no {} was installed ({})", offer.name, reasons.join("; "))))
    }
}

/// The bytes, if they are those that are known.
fn checked(bytes: Vec<u8>, checksums: &[&str]) -> Result<Vec<u8>, String> {
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if checksums.contains(&found.as_str()) {
        Ok(bytes)
    } else {
        Err(format!(
            "its SHA-256 is {found}, not {}: the file has changed or was damaged on its way",
            checksums.join(" or ")
        ))
    }
}

/// The file of an installed model.
pub fn installed(name: &str) -> Option<PathBuf> {
    let offer = OFFERS.iter().find(|offer| offer.name == name)?;
    folder().ok().map(|folder| folder.join(offer.file)).filter(|path| path.is_file())
}

/// The folder of installed models: `VULTUS_MODELS`, or `vultus/models` in the user's folder for data.
fn folder() -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("VULTUS_MODELS")
        .or_else(|| variable("XDG_DATA_HOME").map(|data| data.join("vultus/models")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/share/vultus/models")))
        .ok_or_else(|| Failure::usage(anyhow!("there is no home directory: name the file with --out")))
}
