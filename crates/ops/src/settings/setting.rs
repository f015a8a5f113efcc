//! The types that a setting can have, and the sentence that each refuses a wrong text with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use shoal_model::{ByteRate, ByteSize};
use tracing::level_filters::LevelFilter;

/// A value that is read from one text of a settings document.
pub trait Setting: Sized {
    /// Makes the value.
    ///
    /// # Errors
    /// The end of a sentence that begins with the text: `is not a size such as 4Mi`.
    fn read(text: &str) -> Result<Self, String>;

    /// The text as a mistake may show it.
    fn shown(text: &str) -> String {
        text.to_owned()
    }
}

/// A setting that can be held between two bounds.
pub trait Ranged: Setting + PartialOrd {
    /// The value as an operator would write it.
    fn show(&self) -> String;
}

/// Settings whose text form is that of `FromStr`, each with what a right text is.
macro_rules! from_str {
    ($($kind:ty: $what:expr),* $(,)?) => {$(
        impl Setting for $kind {
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("is not {}", $what))
            }
        }
    )*};
}

macro_rules! ranged {
    ($($kind:ty),*) => {$(
        impl Ranged for $kind {
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

from_str! {
    bool: "true or false",
    u16: format_args!("a whole number up to {}", u16::MAX),
    u32: format_args!("a whole number up to {}", u32::MAX),
    u64: format_args!("a whole number up to {}", u64::MAX),
    usize: format_args!("a whole number up to {}", usize::MAX),
    ByteSize: "a size such as 4Mi, 2Gi or 500M",
    ByteRate: "a rate such as 200Mi/s or 1G/s",
    SocketAddr: "an address such as 127.0.0.1:65001 or [::1]:65001",
    LevelFilter: "a log level: off, error, warn, info, debug or trace",
}

ranged!(u16, u32, u64, usize, ByteSize, ByteRate);

impl Setting for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Setting for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is not a path".into());
        }
        Ok(text.into())
    }
}

impl Setting for Duration {
    fn read(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map_err(|_| "is not a duration such as 300ms, 30s or 6h".into())
    }
}

impl Ranged for Duration {
    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    #[track_caller]
    fn check<T: Setting + Debug + PartialEq>(text: &str, expected: Result<T, &str>) {
        assert_eq!(T::read(text), expected.map_err(String::from), "{text}");
    }

    #[test]
    fn each_type_reads_its_texts_and_refuses_others() {
        check("true", Ok(true));
        check::<bool>("yes", Err("is not true or false"));
        check("65535", Ok(65535u16));
        check::<u16>("65536", Err("is not a whole number up to 65535"));
        check::<u64>("-1", Err("is not a whole number up to 18446744073709551615"));
        check("", Ok(String::new()));
        check("6h", Ok(Duration::from_secs(6 * 3600)));
        check("300ms", Ok(Duration::from_millis(300)));
        check::<Duration>("30", Err("is not a duration such as 300ms, 30s or 6h"));
        check("2Gi", Ok(ByteSize(2 << 30)));
        check("1G/s", Ok(ByteRate(1_000_000_000)));
        check::<ByteRate>("fast", Err("is not a rate such as 200Mi/s or 1G/s"));
        check("[::1]:1", Ok(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1))));
        check::<SocketAddr>("localhost:1", Err("is not an address such as 127.0.0.1:65001 or [::1]:65001"));
        check("/var", Ok(PathBuf::from("/var")));
        check::<PathBuf>("", Err("is not a path"));
    }

    #[test]
    fn bounds_are_shown_as_they_are_written() {
        assert_eq!(Duration::from_secs(90).show(), "1m 30s");
        assert_eq!(ByteSize(4 << 20).show(), "4Mi");
        assert_eq!(7u16.show(), "7");
    }
}
