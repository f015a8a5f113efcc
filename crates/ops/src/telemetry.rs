//! Logs: one line per event on standard error, as JSON or text.
//!
//! The level is for Shoal's own crates. Libraries log at most warnings whatever the level, since their debug
//! output is about their insides and drowns ours.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{fmt, registry};

use crate::settings::{Reader, Setting};

/// What is logged and how: the keys `log.level`, `log.format` and `verbose`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    level: LevelFilter,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Text,
}

impl Setting for Format {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("is not json or text".into()),
        }
    }
}

impl LogSettings {
    /// Reads the settings; `verbose: true` means at least `debug`.
    pub fn read(reader: &Reader) -> Self {
        let level: LevelFilter = reader.get("log.level");
        let verbose: bool = reader.get("verbose");
        Self {
            level: if verbose { level.max(LevelFilter::DEBUG) } else { level },
            format: reader.get("log.format"),
        }
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// When logging has been started before.
pub fn init(settings: LogSettings) -> Result<(), TryInitError> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Text => lines.boxed(),
    };
    registry().with(lines.with_filter(targets(settings.level))).try_init()
}

fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("shoal", level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[track_caller]
    fn check(user: &str, shoal: LevelFilter, others: LevelFilter) {
        let default = "{log: {level: info, format: json}, verbose: false}";
        let reader = Reader::new(user, default, |_| None);
        let settings = LogSettings::read(&reader);
        assert_eq!(reader.finish(), Ok(()));
        let targets = targets(settings.level);
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            assert_eq!(targets.would_enable("shoal_peer::client", &level), level <= shoal);
            assert_eq!(targets.would_enable("hyper::proto", &level), level <= others);
        }
    }

    #[test]
    fn the_level_is_for_our_own_crates() {
        check("", LevelFilter::INFO, LevelFilter::WARN);
        check("verbose: true", LevelFilter::DEBUG, LevelFilter::WARN);
        check("{verbose: true, log: {level: trace}}", LevelFilter::TRACE, LevelFilter::WARN);
        check("log: {level: error}", LevelFilter::ERROR, LevelFilter::ERROR);
        check("log: {level: off}", LevelFilter::OFF, LevelFilter::OFF);
    }
}
