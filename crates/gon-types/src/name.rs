//! Names people give to resources.
//!
//! Promises 1 to 100 characters without control characters and without white space at either end: a name can be
//! printed on a terminal or a page without changing its meaning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a resource, 1–100 characters (the specification's `VARCHAR(100)`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left to show.
    #[error("must not be empty")]
    Empty,
    /// More than 100 characters.
    #[error("must be at most 100 characters")]
    TooLong,
    /// A control character, or white space at an end.
    #[error("must not contain control characters or begin or end with white space")]
    Unprintable,
}

/// Characters that change how the text around them is shown: bidirectional controls and invisible separators.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.chars().count() > 100 {
            return Err(NameError::TooLong);
        }
        if text.trim() != text || text.chars().any(|c| c.is_control() || is_deceptive(c)) {
            return Err(NameError::Unprintable);
        }
        Ok(Self(text.to_owned()))
    }
}
impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printable() {
        for good in ["a", "web-1", "웹 서버", &"x".repeat(100)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{1b}[31m", "a\u{202e}b", &"x".repeat(101)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
