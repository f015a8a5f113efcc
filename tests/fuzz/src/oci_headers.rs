//! What registries and runtimes say in headers: ranges, challenges, times to wait. Any text is read or ignored,
//! and what was read, written and read again is the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Result, Unstructured};
use shoal_oci::challenge;
use shoal_oci::range::{self, ByteRange, ContentRange};
use shoal_registry::retry_after;

use crate::input::{parts, text, word};

const SIZES: [u64; 6] = [0, 1, 500, 501, u64::MAX - 1, u64::MAX];
/// A Tuesday, as the examples of HTTP dates have it.
const NOW: Duration = Duration::from_secs(784_111_777);
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Takes the value of a header.
pub fn check(data: &[u8]) {
    let Some(text) = text(data, build) else { return };
    SIZES.into_iter().for_each(|size| asked(&text, size));
    sent(&text);
    challenged(&text);
    waits(&text);
}

fn build(u: &mut Unstructured<'_>) -> Result<String> {
    let number = |u: &mut Unstructured<'_>| {
        let any = u.arbitrary::<u64>()?.to_string();
        Ok(word(u, &["0", "1", "499", "500", "18446744073709551615", "", "*"])?.replace("1", &any))
    };
    match u.int_in_range(0..=2)? {
        0 => Ok(format!("{}={}-{}", word(u, &["bytes", "BYTES"])?, number(u)?, number(u)?)),
        1 => Ok(format!("{} {}-{}/{}", word(u, &["bytes", "Bytes"])?, number(u)?, number(u)?, number(u)?)),
        _ => challenges(u),
    }
}

fn challenges(u: &mut Unstructured<'_>) -> Result<String> {
    let mut value = String::new();
    parts(u, 6, |u| {
        let sign = word(u, &[" ", ", ", ",", ""])?;
        match u.int_in_range(0..=3)? {
            0 => value += word(u, &["Bearer", "Basic", "basic", "Negotiate", "Digest"])?,
            1 => value += &format!("{:?}", u.arbitrary::<&str>()?),
            _ => {
                let name = word(u, &["realm", "service", "scope", "error", "REALM", "charset"])?;
                let text =
                    word(u, &["https://t.example/token", "repository:a/b:pull", "a \\\"b\\\"", "", ","])?;
                let quote = word(u, &["\"", "\"", ""])?;
                value += &format!("{name}={quote}{text}{quote}");
            }
        }
        value += sign;
        Ok(())
    })?;
    Ok(value)
}

fn asked(text: &str, size: u64) {
    match range::parse(text, size) {
        ByteRange::Whole => {}
        ByteRange::Part(range) => {
            assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
            let plain = format!("bytes={}-{}", range.start, range.end - 1);
            assert_eq!(range::parse(&plain, size), ByteRange::Part(range));
        }
        ByteRange::Unsatisfiable => assert!(size > 0, "all of nothing was there to be had"),
    }
}

fn sent(text: &str) {
    match text.parse::<ContentRange>() {
        Ok(read) => {
            if let ContentRange::Part { range, size } = &read {
                assert!(!range.is_empty() && size.is_none_or(|size| range.end <= size), "{read}");
            }
            assert_eq!(read.to_string().parse(), Ok(read));
        }
        Err(error) => assert!(error.to_string().len() < 1024),
    }
}

fn challenged(text: &str) {
    let read = challenge::parse([text]);
    let shown: Vec<_> = read.iter().map(ToString::to_string).collect();
    // As many values, or as one. The quotes may have made it longer than what is read of one.
    assert_eq!(challenge::parse(shown.iter().map(String::as_str)), read);
    let joined = shown.join(", ");
    if joined.len() <= text.len() {
        assert_eq!(challenge::parse([joined.as_str()]), read);
    }
    assert!(!joined.contains(|it: char| it.is_control() && it != '\t'), "{joined:?}");
}

fn waits(text: &str) {
    let now = UNIX_EPOCH + NOW;
    let (wait, later) = (retry_after::parse(text, now), retry_after::parse(text, now + LONGEST_WAIT));
    assert_eq!(wait.is_some(), later.is_some(), "whether it is a time depends on no clock");
    assert!(wait <= Some(LONGEST_WAIT) && later <= wait, "{wait:?} {later:?}");
    assert_eq!(retry_after::parse(text, SystemTime::UNIX_EPOCH).is_some(), wait.is_some());
}
