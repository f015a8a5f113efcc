//! A Harbor that refuses what Harbor refuses.

pub(crate) mod double;
