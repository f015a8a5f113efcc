//! Averages that move.

/// A moving average over about eight values, which begins with the first; 0 before that.
pub(crate) const fn averaged(before: u64, value: u64) -> u64 {
    if before == 0 { value } else { before.saturating_mul(7).saturating_add(value) / 8 }
}
