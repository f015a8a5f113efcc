//! How an input is read: as it stands, or as choices.

use std::borrow::Cow;

use arbitrary::{Result, Unstructured};

/// No text begins with this byte. An input that does is made of choices.
const CHOICES: u8 = 0xff;

/// The choices in an input, if it is made of some.
pub(crate) fn choices(data: &[u8]) -> Option<Unstructured<'_>> {
    let (first, rest) = data.split_first()?;
    (*first == CHOICES).then(|| Unstructured::new(rest))
}

/// The text that an input stands for; none where it is no text.
pub(crate) fn text<'a>(
    data: &'a [u8],
    build: impl FnOnce(&mut Unstructured<'a>) -> Result<String>,
) -> Option<Cow<'a, str>> {
    match choices(data) {
        Some(mut choices) => build(&mut choices).ok().map(Cow::Owned),
        None => std::str::from_utf8(data).ok().map(Cow::Borrowed),
    }
}

/// Mostly one of the usual words, otherwise any text.
pub(crate) fn word<'a>(u: &mut Unstructured<'a>, usual: &[&'a str]) -> Result<&'a str> {
    if u.ratio(7, 8)? { u.choose(usual).copied() } else { u.arbitrary() }
}

/// Up to `most` parts, each preceded by what stands between two.
pub(crate) fn parts<'a>(
    u: &mut Unstructured<'a>,
    most: usize,
    mut add: impl FnMut(&mut Unstructured<'a>) -> Result<()>,
) -> Result<()> {
    (0..u.int_in_range(0..=most)?).try_for_each(|_| add(u))
}
