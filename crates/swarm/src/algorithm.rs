//! How a node compares its neighbours as sources of pieces; the scheduler says which way its region goes.

use std::fmt;
use std::str::FromStr;

/// How a fetch chooses among the neighbours that hold a piece, and when it finds an answer to be late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By what a neighbour has to do for this node, times the average time that a piece took from it.
    #[default]
    Default,
    /// By the piece time that a model predicts, which learns online from every transfer.
    Ml,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Default, Self::Ml];

    /// As settings and commands call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Ml => "ml",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|it| it.as_str() == text);
        named.ok_or_else(|| "is not default or ml".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_by_its_own_name_and_no_other() {
        for it in Algorithm::ALL {
            assert_eq!(it.to_string().parse(), Ok(it));
        }
        for text in ["", "ML", "best"] {
            assert!(text.parse::<Algorithm>().is_err(), "{text}");
        }
    }
}
