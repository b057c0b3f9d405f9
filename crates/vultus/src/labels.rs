//! Class names: one spelling for each class, one order for all of them.
//!
//! In: names as people and data sets write them (`Disgusted`, `surprise`, a user's own `Very Tired`). Out: canonical
//! names and a [`Labels`] list whose order is the order of every probability vector. It does not know which classes a
//! model has learnt; that is data and comes from the data set or the bundle.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

/// The one table of synonyms: the canonical name first, then the other spellings met in public data sets.
const SYNONYMS: [(&str, &[&str]); 8] = [
    ("angry", &["anger"]),
    ("contempt", &["contemptuous"]),
    ("disgust", &["disgusted"]),
    ("fear", &["fearful", "afraid", "scared"]),
    ("happy", &["happiness"]),
    ("neutral", &[]),
    ("sad", &["sadness"]),
    ("surprise", &["surprised"]),
];

/// The seven expressions of FER-2013 in index order (alphabetical).
pub const BASIC_EXPRESSIONS: [&str; 7] = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"];

/// The canonical spelling of a class name: trimmed, in lower case and Unicode's normal form C, runs of spaces and hyphens as
/// one `_`, synonyms replaced. A name that no data set is known for passes through in that form.
///
/// ```
/// assert_eq!(vultus::labels::canonical(" Happiness "), "happy");
/// assert_eq!(vultus::labels::canonical("Very Tired"), "very_tired");
/// assert_eq!(vultus::labels::canonical("mu\u{308}de"), "müde");
/// ```
pub fn canonical(name: &str) -> String {
    // Some systems write ü as one character, others as u with two dots.
    // In lower case first: a capital may have no character of its own with its marks where the small letter has one.
    let lower: String = name.trim().to_lowercase().nfc().collect();
    let words: Vec<&str> =
        lower.split(|c: char| c.is_whitespace() || c == '-').filter(|word| !word.is_empty()).collect();
    let joined = words.join("_");
    SYNONYMS
        .iter()
        .find(|(canonical, others)| *canonical == joined || others.contains(&joined.as_str()))
        .map_or(joined, |(canonical, _)| (*canonical).to_owned())
}

/// Why a list of class names is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// No names at all.
    #[error("the list of class names is empty: name at least one class")]
    Empty,
    /// A name without a character in it.
    #[error("class name {index} is blank: give every class a name")]
    Blank {
        /// Position in the list.
        index: usize,
    },
    /// A name that cannot be shown.
    #[error("class name {name:?} has a control character: rename the class")]
    Unprintable {
        /// The name.
        name: String,
    },
    /// Two names that mean the same class.
    #[error("class \"{name}\" is listed twice (\"{first}\" and \"{second}\" are the same class): list it once")]
    Repeated {
        /// The canonical name.
        name: String,
        /// The earlier spelling.
        first: String,
        /// The later spelling.
        second: String,
    },
}

/// An ordered, non-empty list of distinct canonical class names. Serialised as a plain list of strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Labels(Vec<String>);

impl Labels {
    /// Takes the names in the given order and brings each to its canonical spelling.
    ///
    /// # Errors
    /// An empty list, a name that is blank or cannot be shown, or two names for one class.
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, LabelsError> {
        let mut canonical_names: Vec<String> = Vec::new();
        let mut spellings: Vec<String> = Vec::new();
        for (index, given) in names.into_iter().enumerate() {
            let given = given.as_ref();
            let name = canonical(given);
            if name.is_empty() {
                return Err(LabelsError::Blank { index });
            }
            if name.contains(char::is_control) {
                return Err(LabelsError::Unprintable { name });
            }
            if let Some(position) = canonical_names.iter().position(|earlier| *earlier == name) {
                let first = spellings.swap_remove(position);
                return Err(LabelsError::Repeated { name, first, second: given.to_owned() });
            }
            canonical_names.push(name);
            spellings.push(given.to_owned());
        }
        if canonical_names.is_empty() { Err(LabelsError::Empty) } else { Ok(Self(canonical_names)) }
    }

    /// The distinct canonical names of `names` in alphabetical order: the order of every data set.
    ///
    /// # Errors
    /// No names, or one that is blank or cannot be shown.
    pub fn sorted(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, LabelsError> {
        let distinct: std::collections::BTreeSet<String> =
            names.into_iter().map(|name| canonical(name.as_ref())).collect();
        Self::new(distinct)
    }

    /// All names in index order.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Number of classes, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The name of class `index`.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn name(&self, index: usize) -> &str {
        &self.0[index]
    }

    /// The index of a class by any of its spellings.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        let name = canonical(name);
        self.0.iter().position(|known| *known == name)
    }
}

impl TryFrom<Vec<String>> for Labels {
    type Error = LabelsError;

    fn try_from(names: Vec<String>) -> Result<Self, LabelsError> {
        Self::new(names)
    }
}

impl From<Labels> for Vec<String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_the_public_data_sets_meet() {
        for (spellings, expected) in [
            (vec!["Angry", "anger"], "angry"),
            (vec!["disgust", "Disgusted "], "disgust"),
            (vec!["fear", "fearful", "AFRAID", "scared"], "fear"),
            (vec!["happy", "happiness"], "happy"),
            (vec!["sad", "sadness"], "sad"),
            (vec!["surprise", "surprised"], "surprise"),
            (vec!["very tired", "Very-Tired", "very_tired", " very -  tired"], "very_tired"),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling), expected, "{spelling}");
            }
        }
    }

    #[test]
    fn basic_expressions_are_canonical_and_alphabetical() {
        assert_eq!(Labels::sorted(BASIC_EXPRESSIONS).unwrap().names(), BASIC_EXPRESSIONS);
    }

    #[test]
    fn order_is_kept_and_synonyms_find_their_index() {
        let labels = Labels::new(["surprised", "anger"]).unwrap();
        assert_eq!(labels.names(), ["surprise", "angry"]);
        assert_eq!(labels.index_of("Angry"), Some(1));
        assert_eq!(labels.index_of("happy"), None);
        assert_eq!(serde_json::to_string(&labels).unwrap(), r#"["surprise","angry"]"#);
    }

    #[test]
    fn bad_lists_are_refused_by_name() {
        assert_eq!(Labels::new(Vec::<String>::new()), Err(LabelsError::Empty));
        assert_eq!(Labels::new(["happy", " - "]), Err(LabelsError::Blank { index: 1 }));
        assert_eq!(Labels::new(["a\u{7}b"]), Err(LabelsError::Unprintable { name: "a\u{7}b".to_owned() }));
        let message = serde_json::from_str::<Labels>(r#"["fear","sad","Afraid"]"#).unwrap_err().to_string();
        assert!(message.contains("\"fear\" is listed twice"), "{message}");
    }

    #[test]
    fn a_capital_without_a_character_of_its_own_is_canonical_at_once() {
        assert_eq!(canonical("H\u{331}a"), "\u{1e96}a");
        assert_eq!(canonical(&canonical("H\u{331}a")), "\u{1e96}a");
    }

    proptest! {
        #[test]
        fn canonical_is_idempotent(name in "\\PC{0,20}") {
            let once = canonical(&name);
            prop_assert_eq!(canonical(&once), once);
        }
    }
}
