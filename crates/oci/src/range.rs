//! Byte ranges: what a client asks for with `Range`, and what an answer says with `Content-Range`.
//!
//! A runtime that resumes a layer, or fetches it in parallel, asks for `bytes=N-`. The rules are those
//! of RFC 9110 section 14, for one range: a header that is malformed, in another unit or of several
//! ranges is ignored, and ignoring means the whole content, never an error. Only a well-formed range
//! that lies outside the content is refused (416).
//!
//! One deviation, for empty content: the whole of it answers any range. Some clients put `bytes=0-` on
//! every request, and 416 would make them give up on content of which they would have all bytes.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// What a request asks of content of known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// Answer 200 with everything.
    Whole,
    /// Answer 206 with these bytes; never empty, and always within the content.
    Part(Range<u64>),
    /// Answer 416.
    Unsatisfiable,
}

/// Reads a `Range` header against content of `size` bytes.
///
/// ```
/// use shoal_oci::range::{ByteRange, parse};
///
/// assert_eq!(parse("bytes=10-", 50), ByteRange::Part(10..50));
/// assert_eq!(parse("bytes=50-", 50), ByteRange::Unsatisfiable);
/// ```
pub fn parse(header: &str, size: u64) -> ByteRange {
    match single(header) {
        Some(spec) if size > 0 => spec.within(size),
        _ => ByteRange::Whole,
    }
}

/// One range as it is written, before the size is known.
enum Spec {
    /// `first-`, or `first-last` with both ends included.
    From { first: u64, last: u64 },
    /// `-len`: the last bytes.
    Suffix { len: u64 },
}

impl Spec {
    fn within(self, size: u64) -> ByteRange {
        let range = match self {
            Self::From { first, last } => first..last.saturating_add(1).min(size),
            Self::Suffix { len } => size.saturating_sub(len)..size,
        };
        if range.is_empty() { ByteRange::Unsatisfiable } else { ByteRange::Part(range) }
    }
}

fn single(header: &str) -> Option<Spec> {
    let (unit, spec) = header.split_once('=')?;
    // A comma, hence a second range, fails as a digit below.
    let (first, last) = spec.trim_matches([' ', '\t']).split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", len) => Some(Spec::Suffix { len: number(len)? }),
        (first, "") => Some(Spec::From { first: number(first)?, last: u64::MAX }),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::From { first, last })
        }
    }
}

/// A run of digits. One too large for the type is still a number, and lies beyond any content.
fn number(digits: &str) -> Option<u64> {
    let well_formed = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    well_formed.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The `Content-Range` of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentRange {
    /// Of a 206: the body is these bytes, not empty, of content of this size where it is stated.
    Part {
        /// Where the body lies in the content.
        range: Range<u64>,
        /// The length of the whole content in bytes; `None` where the server wrote `*`.
        size: Option<u64>,
    },
    /// Of a 416: nothing was sent of content of this size.
    Unsatisfied {
        /// The length of the whole content in bytes.
        size: u64,
    },
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { range, size } => {
                write!(f, "bytes {}-{}/", range.start, range.end.saturating_sub(1))?;
                match size {
                    Some(size) => write!(f, "{size}"),
                    None => f.write_str("*"),
                }
            }
            Self::Unsatisfied { size } => write!(f, "bytes */{size}"),
        }
    }
}

/// Why a text is no content range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("content range {0}: not of the form bytes first-last/size within the size")]
pub struct ContentRangeError(String);

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    fn from_str(text: &str) -> Result<Self, ContentRangeError> {
        content_range(text).ok_or_else(|| ContentRangeError(crate::text::quoted(text)))
    }
}

/// Numbers too large for the type are refused here: unlike a request, an answer has to be exact.
fn content_range(text: &str) -> Option<ContentRange> {
    let exact = |digits| number(digits).filter(|it| *it < u64::MAX);
    let (unit, rest) = text.split_once(' ')?;
    let (range, size) = rest.split_once('/')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if range == "*" {
        return Some(ContentRange::Unsatisfied { size: exact(size)? });
    }
    let (first, last) = range.split_once('-')?;
    let range = exact(first)?..exact(last)?.checked_add(1)?;
    let size = match size {
        "*" => None,
        stated => Some(exact(stated)?),
    };
    let fits = !range.is_empty() && size.is_none_or(|size| range.end <= size);
    fits.then_some(ContentRange::Part { range, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(header: &str, size: u64, expected: ByteRange) {
        assert_eq!(parse(header, size), expected, "{header:?} of {size}");
    }

    #[test]
    fn a_single_range_selects_a_part() {
        check("bytes=0-", 100, ByteRange::Part(0..100));
        check("bytes=99-", 100, ByteRange::Part(99..100));
        check("bytes=10-19", 100, ByteRange::Part(10..20));
        check("bytes=10-10", 100, ByteRange::Part(10..11));
        check("bytes=10-1000", 100, ByteRange::Part(10..100));
        check("bytes=10-99999999999999999999", 100, ByteRange::Part(10..100));
        check("bytes=-10", 100, ByteRange::Part(90..100));
        check("bytes=-1000", 100, ByteRange::Part(0..100));
        check("Bytes= 1-2\t", 100, ByteRange::Part(1..3));
        check("bytes=0-18446744073709551615", u64::MAX, ByteRange::Part(0..u64::MAX));
    }

    #[test]
    fn a_range_beyond_the_end_is_unsatisfiable() {
        for header in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999-"] {
            check(header, 100, ByteRange::Unsatisfiable);
        }
    }

    #[test]
    fn a_header_that_is_not_one_byte_range_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 -2",
            "bytes=--1",
            "bytes=1-2,5-6",
            "bytes=1-,-2",
            "bytes =1-2",
            "pieces=1-2",
            "bytes 1-2/3",
            "bytes=\u{661}-2",
        ] {
            check(header, 100, ByteRange::Whole);
        }
    }

    #[test]
    fn empty_content_is_always_whole() {
        for header in ["bytes=0-", "bytes=5-9", "bytes=-0", "bytes=-5"] {
            check(header, 0, ByteRange::Whole);
        }
    }

    #[track_caller]
    fn check_content_range(text: &str, expected: Option<ContentRange>) {
        assert_eq!(text.parse().ok(), expected, "{text:?}");
    }

    #[test]
    fn a_content_range_states_what_the_body_is() {
        let part = |range, size| Some(ContentRange::Part { range, size });
        check_content_range("bytes 0-49/100", part(0..50, Some(100)));
        check_content_range("bytes 99-99/100", part(99..100, Some(100)));
        check_content_range("bytes 5-9/*", part(5..10, None));
        check_content_range("bytes */100", Some(ContentRange::Unsatisfied { size: 100 }));
        for bad in [
            "",
            "bytes",
            "bytes 0-49",
            "bytes 0-100/100",
            "bytes 9-5/100",
            "bytes -5/100",
            "bytes 5-/100",
            "bytes */*",
            "bytes=0-49/100",
            "bytes  0-49/100",
            "items 0-49/100",
            "bytes 0-18446744073709551615/*",
            "bytes 0-1/99999999999999999999",
        ] {
            check_content_range(bad, None);
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_leaves_the_content(
            header in "bytes=[0-9]{0,21}-[0-9]{0,21}|.*",
            size: u64,
        ) {
            if let ByteRange::Part(range) = parse(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn what_is_asked_is_what_is_selected(first in 0u64..1000, len in 1u64..1000, beyond in 0u64..1000) {
            let range = first..first + len;
            let header = format!("bytes={first}-{}", range.end - 1);
            prop_assert_eq!(parse(&header, range.end + beyond), ByteRange::Part(range));
        }

        #[test]
        fn a_content_range_parses_back(text in "bytes [0-9]{1,20}-[0-9]{1,20}/([0-9]{1,20}|\\*)|.*") {
            if let Ok(range) = text.parse::<ContentRange>() {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
    }
}
