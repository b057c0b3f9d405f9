//! The file format of bundles and checkpoints: safetensors with named texts and a checksum in its metadata.
//!
//! In: tensors and texts. Out: one file, and back. It does not know what the texts mean; [`crate::bundle`] does.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorView};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::persist::{write_atomically, write_new};
use crate::weights::{WeightTensor, Weights};

/// Larger files are not written, and refused before they are read: a foreign file should not fill the memory.
pub const LARGEST_FILE: u64 = 2 << 30;

/// Metadata keys of the container itself.
const FORMAT: &str = "format";
const VERSION: &str = "version";
const CHECKSUM: &str = "sha256";

/// How the small files begin that stand in a checkout for large ones.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// Tensors and named texts of one kind of file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Texts by name.
    pub texts: BTreeMap<String, String>,
    /// The tensors.
    pub tensors: Weights,
}

/// What kind of file, and which version of it this program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Name in the metadata, such as `vultus-bundle`.
    pub name: &'static str,
    /// Newest version that can be read.
    pub version: u32,
}

/// A file that cannot be used, with the reason.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is larger than anything this program writes.
    #[error("{path} has {size} bytes, and a {expected} has at most {LARGEST_FILE}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// Kind of file that was expected.
        expected: &'static str,
    },
    /// It is the beginning of a file.
    #[error("{path} breaks off after {size} bytes: it is no whole {expected}; copy or download it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: usize,
        /// Kind of file that was expected.
        expected: &'static str,
    },
    /// It is no safetensors file.
    #[error("{path} is no {expected}, a file in the format safetensors that vultus writes: {reason}")]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// Kind of file that was expected.
        expected: &'static str,
        /// What the reader says.
        reason: SafeTensorError,
    },
    /// It is a safetensors file of something else.
    #[error("{path} is no {expected}: it is {found}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Kind of file that was expected.
        expected: &'static str,
        /// What it says it is.
        found: String,
    },
    /// It was written by a later version.
    #[error("{path} has version {found} of {expected}; this program reads up to {known}: use a newer vultus")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Kind of file.
        expected: &'static str,
        /// Its version.
        found: String,
        /// Newest version this program reads.
        known: u32,
    },
    /// Its contents are not what was written.
    #[error("{path} is damaged: its checksum does not match its contents; copy or download it again")]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// A text or tensor of it makes no sense.
    #[error("{path} is no usable {expected}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Kind of file that was expected.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Brings the texts in the header of a file into the order of their names, so that equal contents are equal files: the library
/// takes them from a table without an order. The header is JSON behind 8 bytes with its length, and may end in spaces.
fn sort_texts(file: &mut [u8]) {
    let Some((length, rest)) = file.split_first_chunk_mut::<8>() else { return };
    let Some(header) = rest.get_mut(..u64::from_le_bytes(*length) as usize) else { return };
    let Ok(mut entries) = serde_json::from_slice::<Map<String, Value>>(header) else { return };
    if let Some(Value::Object(texts)) = entries.get_mut("__metadata__") {
        texts.sort_keys();
    }
    let sorted = Value::Object(entries).to_string().into_bytes();
    if sorted.len() <= header.len() {
        header.fill(b' ');
        header[..sorted.len()].copy_from_slice(&sorted);
    }
}

impl Container {
    /// Writes the file atomically. A tensor whose values all have an equal in half precision is stored in it.
    ///
    /// # Errors
    /// The system's refusal, naming `path`, or more than a file of this format may hold.
    pub fn save(&self, path: &Path, format: Format) -> Result<(), ContainerError> {
        let file = self.to_bytes(path, format)?;
        Ok(write_atomically(path, |writer| writer.write_all(&file))?)
    }

    /// As [`Container::save`], to a file that is not there yet.
    ///
    /// # Errors
    /// As there, and a file of this name.
    pub fn save_new(&self, path: &Path, format: Format) -> Result<(), ContainerError> {
        Ok(write_new(path, &self.to_bytes(path, format)?)?)
    }

    /// The bytes of the file, which errors call `path`.
    fn to_bytes(&self, path: &Path, format: Format) -> Result<Vec<u8>, ContainerError> {
        let content = |reason: SafeTensorError| ContainerError::Content {
            path: path.to_owned(),
            expected: format.name,
            reason: reason.to_string(),
        };
        if let Some(name) = [FORMAT, VERSION, CHECKSUM].into_iter().find(|&name| self.texts.contains_key(name)) {
            let (path, reason) = (path.to_owned(), format!("a text called {name} would be taken for the format's own"));
            return Err(ContainerError::Content { path, expected: format.name, reason });
        }
        let bytes: Vec<(&str, &WeightTensor, Dtype, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, tensor)| match halves(&tensor.data) {
                Some(bytes) => (name, tensor, Dtype::F16, bytes),
                None => (name, tensor, Dtype::F32, tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect()),
            })
            .collect();
        let mut metadata: HashMap<String, String> = self.texts.clone().into_iter().collect();
        metadata.insert(FORMAT.to_owned(), format.name.to_owned());
        metadata.insert(VERSION.to_owned(), format.version.to_string());
        metadata.insert(CHECKSUM.to_owned(), self.checksum(format));
        let mut views = Vec::with_capacity(bytes.len());
        for (name, tensor, precision, data) in &bytes {
            views.push((*name, TensorView::new(*precision, tensor.shape.clone(), data).map_err(content)?));
        }
        let mut file = safetensors::serialize(views, Some(metadata)).map_err(content)?;
        sort_texts(&mut file);
        check_size(path, file.len() as u64, format)?;
        Ok(file)
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// Why the file is refused: see [`ContainerError`].
    pub fn load(path: &Path, format: Format) -> Result<Self, ContainerError> {
        let file = fs_err::File::open(path)?;
        let size = file.metadata()?.len();
        check_size(path, size, format)?;
        let mut bytes = Vec::with_capacity(size as usize);
        // It may have grown since.
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
        check_size(path, bytes.len() as u64, format)?;
        Self::from_bytes(&bytes, path, format)
    }

    /// Reads and checks the bytes of a file; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Container::load`].
    pub fn from_bytes(bytes: &[u8], path: &Path, format: Format) -> Result<Self, ContainerError> {
        let expected = format.name;
        if bytes.starts_with(LFS_POINTER) {
            let found = "a pointer to a file that Git LFS keeps: git lfs pull fetches that".to_owned();
            return Err(ContainerError::Foreign { path: path.to_owned(), expected, found });
        }
        let unreadable = |reason| {
            let (path, size) = (path.to_owned(), bytes.len());
            if breaks_off(bytes, &reason) {
                ContainerError::Truncated { path, size, expected }
            } else {
                ContainerError::NotSafetensors { path, expected, reason }
            }
        };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let mut texts: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let foreign = |found: String| ContainerError::Foreign { path: path.to_owned(), expected, found };
        match texts.remove(FORMAT) {
            Some(name) if name == format.name => {}
            Some(name) => return Err(foreign(name)),
            None => return Err(foreign("a safetensors file of another program".to_owned())),
        }
        let version = texts.remove(VERSION).unwrap_or_default();
        if version.parse::<u32>().is_ok_and(|version| version > format.version) {
            return Err(ContainerError::Newer {
                path: path.to_owned(),
                expected,
                found: version,
                known: format.version,
            });
        }
        let checksum = texts.remove(CHECKSUM);
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let mut weights = Weights::default();
        for (name, view) in tensors.tensors() {
            let data = match view.dtype() {
                Dtype::F32 => view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
                Dtype::F16 => {
                    view.data().as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
                }
                other => {
                    return Err(ContainerError::Content {
                        path: path.to_owned(),
                        expected,
                        reason: format!("tensor {name} has type {other:?}, neither F32 nor F16"),
                    });
                }
            };
            weights.insert(name, WeightTensor { shape: view.shape().to_vec(), data });
        }
        let container = Self { texts, tensors: weights };
        // The version was part of what was summed.
        let written = Format { name: format.name, version: version.parse().unwrap_or_default() };
        if checksum.as_deref() != Some(container.checksum(written).as_str()) {
            return Err(ContainerError::Corrupt { path: path.to_owned() });
        }
        Ok(container)
    }

    /// SHA-256 over format, version, texts and tensors in order of their names, each part preceded by its length.
    fn checksum(&self, format: Format) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(format.name.as_bytes());
        part(&format.version.to_le_bytes());
        for (name, text) in &self.texts {
            part(name.as_bytes());
            part(text.as_bytes());
        }
        for (name, tensor) in self.tensors.iter() {
            part(name.as_bytes());
            for &size in &tensor.shape {
                part(&(size as u64).to_le_bytes());
            }
            let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
            part(&bytes);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Checks that a file of `size` bytes can be read, and so may be written.
fn check_size(path: &Path, size: u64, format: Format) -> Result<(), ContainerError> {
    if size <= LARGEST_FILE {
        return Ok(());
    }
    Err(ContainerError::TooLarge { path: path.to_owned(), size, expected: format.name })
}

/// The values in half precision, if each has its equal there.
fn halves(values: &[f32]) -> Option<Vec<u8>> {
    let exact = |&value: &f32| f16::from_f32(value).to_f32().to_bits() == value.to_bits();
    let halve = || values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
    values.iter().all(exact).then(halve)
}

/// Whether `bytes`, refused for `reason`, are the beginning of a longer safetensors file.
fn breaks_off(bytes: &[u8], reason: &SafeTensorError) -> bool {
    match reason {
        SafeTensorError::HeaderTooSmall => true,
        // The header is a JSON object, after its length.
        SafeTensorError::InvalidHeaderLength => matches!(bytes.get(8), None | Some(b'{')),
        // The reader says the same of a file that is too long.
        SafeTensorError::MetadataIncompleteBuffer => whole_length(bytes).is_some_and(|whole| bytes.len() < whole),
        _ => false,
    }
}

/// Length of a whole file with the header that `bytes` begin with.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Metadata = serde_json::from_slice(rest.get(..length)?).ok()?;
    length.checked_add(8)?.checked_add(header.data_len())
}
