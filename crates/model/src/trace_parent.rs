//! Where in a trace something belongs, as processes tell each other.

use std::fmt;
use std::str::FromStr;

/// Length of the header's value in version 00, in bytes.
const LEN: usize = 55;
/// The flag of a trace that is recorded.
const SAMPLED: u128 = 1;

/// The `traceparent` header: which trace, and which span of it asks.
///
/// Source: W3C Trace Context, section 3.2. Written in version 00; of later versions the same fields are read.
///
/// ```
/// use shoal_model::TraceParent;
///
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let parent: TraceParent = header.parse().unwrap();
/// assert!(parent.is_sampled());
/// assert_eq!(parent.to_string(), header);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    // As bytes, which take no room for alignment: messages carry this, and mostly none.
    trace: [u8; 16],
    span: [u8; 8],
    is_sampled: bool,
}

/// A text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("traceparent: not of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct NoTraceParent;

impl TraceParent {
    /// The header's name, also in gRPC's metadata.
    pub const HEADER: &str = "traceparent";

    /// `None` where one of the two is zero, which means that there is none.
    pub const fn new(trace: u128, span: u64, is_sampled: bool) -> Option<Self> {
        if trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace: trace.to_be_bytes(), span: span.to_be_bytes(), is_sampled })
    }

    /// The trace.
    pub const fn trace(&self) -> u128 {
        u128::from_be_bytes(self.trace)
    }

    /// The span that asks.
    pub const fn span(&self) -> u64 {
        u64::from_be_bytes(self.span)
    }

    /// Whether whoever asks records the trace.
    pub const fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The trace as it is searched for: 32 hex digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace())
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace(), self.span(), u8::from(self.is_sampled))
    }
}

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut fields = text.split('-');
        let mut field = |n_digits: usize| fields.next().and_then(|it| hex(it, n_digits)).ok_or(NoTraceParent);
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        // Version 00 has no more fields, and ff is none.
        if version == 0xff || version == 0 && text.len() != LEN {
            return Err(NoTraceParent);
        }
        let span = u64::try_from(span).map_err(|_| NoTraceParent)?;
        Self::new(trace, span, flags & SAMPLED != 0).ok_or(NoTraceParent)
    }
}

/// A number of so many digits, in lower case.
fn hex(text: &str, n_digits: usize) -> Option<u128> {
    let is_digit = |it: u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
    let is_hex = text.len() == n_digits && text.bytes().all(is_digit);
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_is_read_is_written_again() {
        for (flags, written, is_sampled) in [("00", "00", false), ("01", "01", true), ("ff", "01", true)] {
            let parent: TraceParent = format!("00-{TRACE}-{SPAN}-{flags}").parse().unwrap();
            assert_eq!(parent.is_sampled(), is_sampled);
            assert_eq!(parent.to_string(), format!("00-{TRACE}-{SPAN}-{written}"));
            assert_eq!(parent.trace_id(), TRACE);
        }
    }

    #[test]
    fn of_later_versions_the_known_fields_are_read() {
        for text in
            [format!("01-{TRACE}-{SPAN}-01"), format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like")]
        {
            assert_eq!(text.parse::<TraceParent>().map(|it| it.trace_id()), Ok(TRACE.to_owned()), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let upper = TRACE.to_uppercase();
        let none = "0".repeat(32);
        for text in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{none}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}é-{SPAN}-01"),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(NoTraceParent), "{text}");
        }
    }
}
