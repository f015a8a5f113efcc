//! What regions are called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use shoal_ops::settings::Setting;

/// The name of a region, which can stand in a header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegionName(Arc<str>);

/// A text that names no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not of 1 to 63 letters, digits, dots, dashes and underscores")]
pub struct RegionNameError;

impl RegionName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegionName {
    type Err = RegionNameError;

    fn from_str(text: &str) -> Result<Self, RegionNameError> {
        let is_allowed = |it: u8| it.is_ascii_alphanumeric() || b".-_".contains(&it);
        match (1..=63).contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Self(text.into())),
            false => Err(RegionNameError),
        }
    }
}

impl fmt::Display for RegionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for RegionName {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|it: RegionNameError| it.to_string())
    }
}
