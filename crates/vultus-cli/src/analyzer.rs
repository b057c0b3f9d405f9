//! The options that choose a model and how faces are found; the same for every command that analyzes pictures.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use vultus::analyze::{AnalyzeOptions, Analyzer};
use vultus::bundle::Bundle;
use vultus::classifier::Classifier;
use vultus::decode::DecodeLimits;
use vultus::faces::{FaceFinder, FaceMethod, FaceOptions};
use vultus::persist::is_there;

use crate::command::model_file;
use crate::command::models::installed;
use crate::failure::Failure;

/// The model that is part of the program, with its name.
#[cfg(has_default_model)]
const DEFAULT_MODEL: Option<(&[u8], &str)> = Some((include_bytes!("../../../models/fer-base.safetensors"), "fer-base"));
#[cfg(not(has_default_model))]
const DEFAULT_MODEL: Option<(&[u8], &str)> = None;

/// How faces are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Faces {
    /// SeetaFace's cascade, which is part of the program: upright faces, from the front, not too small.
    Rustface,
    /// The network YuNet, from --face-model or as `vultus models get yunet` installs it: better, and aligns faces.
    Yunet,
    /// None is looked for: the picture is one face.
    Whole,
}

/// The model, the face finder, and what counts.
#[derive(Debug, clap::Args)]
pub struct AnalyzerArguments {
    /// A model file, or a run directory. Without it, the model in the program, fer-base.
    #[arg(long, value_name = "BUNDLE")]
    model: Option<PathBuf>,
    /// How faces are found [default: rustface, or yunet with --face-model, but a picture of exactly the size of the
    /// network's input is a face].
    #[arg(long, value_name = "METHOD", value_enum, hide_default_value = true)]
    faces: Option<Faces>,
    /// A YuNet model (ONNX).
    #[arg(long, value_name = "FILE")]
    face_model: Option<PathBuf>,
    /// Smallest face that counts: the shorter side of its box in pixels.
    #[arg(long, value_name = "PX", default_value_t = FaceOptions::default().minimum_px)]
    min_face: u32,
    /// Least confidence of the face finder that counts, 0 to 1.
    #[arg(long, value_name = "P", default_value_t = FaceOptions::default().minimum_confidence, value_parser = probability)]
    min_confidence: f32,
    /// Give no label to a face whose best class is less probable than this.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    abstain_below: f32,
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("use a number from 0 to 1".to_owned()),
    }
}

impl AnalyzerArguments {
    /// Loads all of it; the path says where the model comes from.
    pub fn load(&self) -> Result<(Analyzer, PathBuf), Failure> {
        // The finder first: loading it is quicker.
        let finder = self.finder()?;
        let options = self.options(DecodeLimits::default());
        let (bundle, origin) = self.bundle()?;
        Ok((Analyzer::new(Classifier::from_bundle(bundle)?, finder, options), origin))
    }

    /// What is said about the faces, for pictures within `limits`.
    pub fn options(&self, limits: DecodeLimits) -> AnalyzeOptions {
        AnalyzeOptions { abstain_below: self.abstain_below, limits, always_search: self.faces.is_some() }
    }

    /// The model, and where it comes from.
    pub fn bundle(&self) -> Result<(Bundle, PathBuf), Failure> {
        if let Some(path) = &self.model {
            let path = model_file(path)?;
            return Ok((Bundle::load(&path)?, path));
        }
        let Some((bytes, name)) = DEFAULT_MODEL else {
            return Err(Failure::usage(anyhow!("this program was built without a model: name one with --model")));
        };
        Ok((Bundle::from_bytes(bytes, Path::new(name))?, PathBuf::from(name)))
    }

    /// The name of the way in which faces are found.
    pub fn finder_name(&self) -> &'static str {
        match (self.faces, &self.face_model) {
            (Some(Faces::Whole), _) => "whole",
            (Some(Faces::Yunet), _) | (None, Some(_)) => "yunet",
            (Some(Faces::Rustface) | None, _) => "rustface",
        }
    }

    /// The face finder.
    pub fn finder(&self) -> Result<FaceFinder, Failure> {
        let options = FaceOptions { minimum_px: self.min_face, minimum_confidence: self.min_confidence };
        let method = match (self.faces, &self.face_model) {
            (None | Some(Faces::Yunet), Some(model)) if !is_there(model)? => {
                return Err(Failure::usage(anyhow!(
                    "there is no file {}: name another with --face-model",
                    model.display()
                )));
            }
            (None | Some(Faces::Yunet), Some(model)) => FaceMethod::Yunet { model: model.clone() },
            (Some(_), Some(model)) => {
                return Err(Failure::usage(anyhow!(
                    "--face-model {} is for --faces yunet; the other methods take no file",
                    model.display()
                )));
            }
            (None | Some(Faces::Rustface), None) => FaceMethod::Rustface,
            (Some(Faces::Whole), None) => FaceMethod::Whole,
            (Some(Faces::Yunet), None) => FaceMethod::Yunet {
                model: installed("yunet").ok_or_else(|| {
                    Failure::usage(anyhow!(
                        "the model of --faces yunet is not installed: run vultus models get yunet, \
                         or name its file with --face-model"
                    ))
                })?,
            },
        };
        Ok(FaceFinder::new(&method, options)?)
    }
}
