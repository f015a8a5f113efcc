//! Preheats at certain times.

mod timetable;

pub use timetable::{Times, TimesError};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Preheats;
use super::request::Request;
use crate::timestamp::Timestamp;
use timetable::Timetable;

/// An image that is fetched at certain times.
#[derive(Clone, Debug)]
pub struct ScheduleSettings {
    /// When.
    pub times: Times,
    /// What.
    pub request: Request,
}

/// Asks for each job when its time has come.
pub(crate) async fn run(schedules: Vec<ScheduleSettings>, preheats: Preheats, stopping: CancellationToken) {
    let times = schedules.iter().map(|it| it.times.clone());
    let mut table = Timetable::new(times, Timestamp::now());
    while let Some(nap) = table.sleep(Timestamp::now()) {
        if stopping.run_until_cancelled(sleep(nap)).await.is_none() {
            return;
        }
        let due = table.look(Timestamp::now());
        for ScheduleSettings { request, times } in due.missed.iter().filter_map(|at| schedules.get(*at)) {
            tracing::warn!(image = %request.image, ?times, "a scheduled preheat was missed, and is not made up for");
        }
        for ScheduleSettings { request, times } in due.now.iter().filter_map(|at| schedules.get(*at)) {
            if let Err(error) = preheats.submit(request.clone(), "schedule".to_owned()).await {
                tracing::warn!(image = %request.image, ?times, %error, "no scheduled preheat");
            }
        }
    }
}
