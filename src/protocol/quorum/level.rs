//! How many replicas must answer, by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A named quorum size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One replica.
    One,
    /// A majority of the replicas in effect.
    Quorum,
    /// Every replica in effect.
    All,
}

impl Level {
    /// The number of replicas that the level asks for, of `replicas` in effect.
    pub fn required(self, replicas: u32) -> u32 {
        match self {
            Level::One => 1,
            Level::Quorum => majority(replicas),
            Level::All => replicas,
        }
    }
}

/// The smallest number of `replicas` of which any two choices meet.
pub fn majority(replicas: u32) -> u32 {
    replicas / 2 + 1
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::One => "one",
            Level::Quorum => "quorum",
            Level::All => "all",
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "one" => Ok(Level::One),
            "quorum" => Ok(Level::Quorum),
            "all" => Ok(Level::All),
            _ => Err(format!("{text:?} is not a level; use one, quorum or all")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_names_a_number_of_replicas() {
        for (replicas, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            assert_eq!(Level::One.required(replicas), 1);
            assert_eq!(Level::Quorum.required(replicas), quorum);
            assert_eq!(Level::All.required(replicas), replicas);
        }
    }

    #[test]
    fn two_majorities_meet_and_nothing_smaller_does() {
        for replicas in 1..=32 {
            assert!(2 * majority(replicas) > replicas);
            assert!(2 * (majority(replicas) - 1) <= replicas);
        }
    }

    #[test]
    fn a_level_survives_its_text_in_any_case() {
        for level in [Level::One, Level::Quorum, Level::All] {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(level.to_string().to_uppercase().parse(), Ok(level));
        }
    }

    #[test]
    fn an_unknown_level_is_named_in_the_error() {
        let error = "two".parse::<Level>().err();
        assert!(error.is_some_and(|text| text.contains("\"two\"")));
    }
}
