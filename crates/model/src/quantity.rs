//! Human sizes and rates: `4Mi`, `2Gi`, `500M`, `200Mi/s`.
//!
//! Suffixes follow Kubernetes quantities: `Ki Mi Gi Ti` are powers of 1024, `k M G T` powers of 1000;
//! a trailing `B` is accepted because people write it.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(pub u64);

/// Why a text is not a size or rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
}

const UNITS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_suffix('B').unwrap_or(text);
    let (number, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn show(bytes: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = UNITS[..4].iter().rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match exact {
        Some((suffix, unit)) => write!(f, "{}{suffix}", bytes / unit),
        None => write!(f, "{bytes}"),
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text)
            .map(Self)
            .ok_or_else(|| QuantityError { text: text.into(), what: "size such as 4Mi, 2Gi or 500M" })
    }
}

impl FromStr for ByteRate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text.strip_suffix("/s").unwrap_or(text))
            .map(Self)
            .ok_or_else(|| QuantityError { text: text.into(), what: "rate such as 200Mi/s or 1G/s" })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, f)
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, f)?;
        f.write_str("/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(text.parse::<ByteSize>().ok().map(|it| it.0), expected, "{text}");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        check("4Mi", Some(4 << 20));
        check("2 GiB", Some(2 << 30));
        check("500M", Some(500_000_000));
        check("17", Some(17));
        check("0", Some(0));
        for bad in ["", "Mi", "-1", "1.5Gi", "4Xi", "99999999999Ti", "4mi"] {
            check(bad, None);
        }
        assert_eq!("200Mi/s".parse(), Ok(ByteRate(200 << 20)));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
