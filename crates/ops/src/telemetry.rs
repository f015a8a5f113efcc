//! Logs: one line per event on standard error, as JSON or text.
//!
//! The level is for Shoal's own crates. Libraries log at most warnings whatever the level, since their debug
//! output is about their insides and drowns ours. It may change while the process runs ([`follow_level`]).

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Registry, fmt, registry, reload};

use crate::settings::{Reader, Setting};
use crate::traces::Traces;

/// How often the settings file is looked at.
const LOOK: Duration = Duration::from_secs(5);

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

/// What is logged, for as long as the process runs.
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Logs by this level from now on; the form of lines stays.
    fn set(&self, settings: LogSettings) {
        // Only a process that has ended has no subscriber any more.
        let _ = self.0.reload(targets(settings.level));
    }
}

/// Starts logging for the whole process, and tracing where spans go anywhere.
///
/// # Errors
/// When logging has been started before.
pub(crate) fn init(settings: LogSettings, traces: Option<&Traces>) -> Result<Level, TryInitError> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Text => lines.boxed(),
    };
    let (filter, level) = reload::Layer::new(targets(settings.level));
    registry().with(lines.with_filter(filter)).with(traces.map(Traces::layer)).try_init()?;
    Ok(Level(level))
}

/// Keeps to the level in the settings file, whenever that changes. `read` is given the file's text; what it cannot read is
/// told, and the level stays.
pub(crate) async fn follow_level(
    file: PathBuf,
    level: Level,
    mut current: LogSettings,
    read: impl Fn(&str) -> anyhow::Result<LogSettings>,
) {
    let mut seen = look(&file, None).await.map(|(stamp, _)| stamp);
    loop {
        sleep(LOOK).await;
        let Some((stamp, text)) = look(&file, seen).await else { continue };
        seen = Some(stamp);
        match read(&text) {
            Ok(settings) if settings.level != current.level => {
                tracing::info!(level = %settings.level, "log level changed");
                level.set(settings);
                current = settings;
            }
            Ok(_) => {}
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(file = %file.display(), error, "settings not read again; the log level stays");
            }
        }
    }
}

/// What tells that a file was replaced.
type Stamp = (SystemTime, u64);

/// The file's stamp and text, unless it has the stamp that was `seen` or cannot be read.
async fn look(file: &Path, seen: Option<Stamp>) -> Option<(Stamp, String)> {
    let file = file.to_owned();
    let look = move || {
        let meta = std::fs::metadata(&file).ok()?;
        let stamp = (meta.modified().ok()?, meta.len());
        if Some(stamp) == seen {
            return None;
        }
        Some((stamp, std::fs::read_to_string(&file).ok()?))
    };
    spawn_blocking(look).await.ok().flatten()
}

pub(crate) fn targets(level: LevelFilter) -> Targets {
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

    #[tokio::test(start_paused = true)]
    async fn the_level_in_the_file_is_kept_to_while_the_process_runs() {
        let default = "{log: {level: info, format: json}, verbose: false}";
        let read = move |text: &str| {
            let reader = Reader::new(text, default, |_| None);
            let settings = LogSettings::read(&reader);
            reader.finish()?;
            Ok(settings)
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, "log: {level: info}").unwrap();
        let (filter, handle) = reload::Layer::new(targets(LevelFilter::INFO));
        let level = {
            let handle = handle.clone();
            move || handle.with_current(|it| it.would_enable("shoal", &Level::DEBUG)).unwrap()
        };
        let subscriber = registry().with(fmt::layer().with_writer(std::io::sink).with_filter(filter));
        let _guard = subscriber.set_default();
        let first = read("log: {level: info}").unwrap();
        tokio::spawn(follow_level(file.clone(), super::Level(handle), first, read));
        let until = async |expected| {
            for _ in 0..10 {
                if level() == expected {
                    return;
                }
                sleep(LOOK).await;
            }
            panic!("the level has not changed");
        };
        // Longer than before each time: a file system's clock may not tell them apart.
        sleep(LOOK / 2).await;
        std::fs::write(&file, "log: {level: debug}").unwrap();
        until(true).await;
        std::fs::write(&file, "log: {level: louder}").unwrap();
        sleep(LOOK * 4).await;
        assert!(level(), "what cannot be read changes nothing");
        std::fs::write(&file, "log: {level: warn, format: json}").unwrap();
        until(false).await;
    }
}
