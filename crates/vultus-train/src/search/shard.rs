//! Sharing a search out: `3/16` is the third of sixteen equal parts.
//!
//! In: text such as `3/16`. Out: which trials belong to it. It starts no process and copies no file.

use std::fmt;
use std::str::FromStr;

use super::SearchError;

/// One of several parts of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether trial `number` (from 0) belongs to this part.
    pub fn contains(self, number: usize) -> bool {
        number % self.count == self.index
    }
}

impl FromStr for Shard {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Self, SearchError> {
        let parse = || {
            let (number, count) = text.split_once('/')?;
            let (number, count) = (number.trim().parse::<usize>().ok()?, count.trim().parse::<usize>().ok()?);
            (1..=count).contains(&number).then(|| Self { index: number - 1, count })
        };
        parse().ok_or_else(|| SearchError::Shard { text: text.to_owned() })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_belongs_to_exactly_one_part() {
        let shards: Vec<Shard> = (1..=3).map(|number| format!("{number}/3").parse().unwrap()).collect();
        for number in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.contains(number)).count(), 1);
        }
        assert!(shards[0].contains(0) && shards[1].contains(1) && shards[0].contains(3));
        assert_eq!(shards[2].to_string(), "3/3");
    }

    #[test]
    fn other_text_is_refused_by_name() {
        for text in ["0/3", "4/3", "x", "1/0", "1/", "-1/3", "1/3/5"] {
            let message = text.parse::<Shard>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{text}`")), "{message}");
        }
    }
}
