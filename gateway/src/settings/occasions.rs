//! The settings of what starts preheat jobs by itself.

use shoal_oci::RegistryName;
use shoal_ops::settings::{Reader, SecretSource, Setting};

use super::RegistrySettings;
use super::registry::globs;
use crate::harbor::rules::{Rule, Target};
use crate::preheat::image::{Image, Platform, registry_named};
use crate::preheat::request::{MAX_REGIONS, Request, Scope};
use crate::preheat::schedule::{ScheduleSettings, TimesError};
use crate::regions::RegionName;

/// The commented template of an entry of `preheat.rules`.
const RULE: &str = include_str!("../../config/preheat-rule.yaml");
/// The commented template of an entry of `preheat.schedules`.
const SCHEDULE: &str = include_str!("../../config/preheat-schedule.yaml");

/// What starts preheat jobs by itself.
#[derive(Clone, Debug)]
pub struct OccasionSettings {
    /// What webhooks come with; none for no webhooks.
    pub authorization: Option<SecretSource>,
    /// What is done about pushes that webhooks tell of.
    pub rules: Vec<Rule>,
    /// Where images go that notifications tell of.
    pub notified: Target,
    /// What is fetched at certain times.
    pub schedules: Vec<ScheduleSettings>,
}

pub(super) fn read(reader: &Reader, registries: &[RegistrySettings]) -> OccasionSettings {
    let named = |host: &str| named(registries, host);
    let items = reader.list("preheat.schedules", SCHEDULE);
    OccasionSettings {
        authorization: authorization(reader),
        rules: reader.list("preheat.rules", RULE).iter().map(rule).collect(),
        notified: target(reader, "preheat.notifications."),
        schedules: items.iter().filter_map(|it| schedule(it, named)).collect(),
    }
}

fn authorization(reader: &Reader) -> Option<SecretSource> {
    let given: Option<SecretSource> = reader.optional("preheat.webhook.authorization");
    let text = given.as_ref().map_or("", |it| it.secret().expose());
    // A header has neither around its value, so nobody could show it.
    if text != text.trim() || text.chars().any(|it| it.is_control()) {
        reader.reject(
            "preheat.webhook.authorization",
            "has white space around it, or control characters in it",
        );
    }
    given
}

fn rule(item: &Reader) -> Rule {
    Rule { repositories: globs(item, "repositories"), tags: globs(item, "tags"), target: target(item, "") }
}

/// The scope and platforms below `at`.
fn target(reader: &Reader, at: &str) -> Target {
    Target {
        scope: reader.parse(&format!("{at}scope"), |text| {
            let known = Scope::NAMED.map(|(name, _)| name);
            if known.contains(&text) {
                Ok(text.to_owned())
            } else {
                Err(format!("is none of {}", known.join(", ")))
            }
        }),
        platforms: reader.values(&format!("{at}platforms")).into_iter().map(|OnePlatform(it)| it).collect(),
        regions: regions(reader, &format!("{at}regions")),
    }
}

fn regions(reader: &Reader, key: &str) -> Vec<String> {
    let regions: Vec<String> = reader.values(key).into_iter().map(|OneRegion(it)| it).collect();
    let alone = regions == ["*"];
    if regions.len() > MAX_REGIONS || (!alone && regions.iter().any(|it| it == "*")) {
        reader.reject(key, &format!("are either \"*\" alone, for all, or at most {MAX_REGIONS} names"));
        return Vec::new();
    }
    regions
}

fn schedule(item: &Reader, named: impl Fn(&str) -> Option<RegistryName> + Copy) -> Option<ScheduleSettings> {
    let times = item.parse("cron", |text| text.parse().map_err(|it: TimesError| it.to_string()));
    let target = target(item, "");
    if item.optional::<String>("image").is_none() {
        item.required::<String>("image");
        return None;
    }
    let image = item.parse("image", |text| match text {
        // The empty default passes, as a default must.
        "" => Ok(None),
        text if Image::parse(text, named).is_ok() => Ok(Some(text.to_owned())),
        _ => Err("is not an image of a configured registry, such as harbor.example.com/production/app:v2"
            .to_owned()),
    })?;
    match Request::new(target.asked(image), named) {
        Ok(request) => Some(ScheduleSettings { times, request }),
        // All else has been read by itself.
        Err(_) => {
            item.reject("platforms", "are more than a job may have");
            None
        }
    }
}

/// The configured registry that a host is a name of.
fn named(registries: &[RegistrySettings], host: &str) -> Option<RegistryName> {
    let named = |fits: &dyn Fn(&RegistrySettings) -> bool| {
        registries.iter().find(|it| fits(it)).map(|it| it.endpoint.name.clone())
    };
    let has_host = |host: &str| named(&|it| it.access.hosts.iter().any(|it| it == host));
    registry_named(host, |name| named(&|it| it.endpoint.name == *name).is_some(), has_host)
}

struct OnePlatform(String);

impl Setting for OnePlatform {
    fn read(text: &str) -> Result<Self, String> {
        match text.parse::<Platform>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err("is not a platform such as linux/amd64".to_owned()),
        }
    }
}

/// The name of a region, or `*` for all.
struct OneRegion(String);

impl Setting for OneRegion {
    fn read(text: &str) -> Result<Self, String> {
        if text != "*" {
            RegionName::read(text)?;
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preheat::request::Elsewhere;
    use crate::settings::{DEFAULT, Settings};

    fn read(preheat: &str) -> (OccasionSettings, Result<(), String>) {
        let user = format!(
            "{{registries: [{{name: harbor.example.com, hosts: [harbor.internal]}}], preheat: {{{preheat}}}}}"
        );
        let reader = Reader::new(&user, DEFAULT, |name| (name == "SECRET").then(|| " hunter2".to_owned()));
        let settings = Settings::read(&reader);
        (settings.occasions, reader.finish().map_err(|it| it.to_string()))
    }

    #[track_caller]
    fn check(preheat: &str, mistake: &str) {
        let text = read(preheat).1.unwrap_err();
        assert!(text.contains(mistake), "{mistake:?} in {text:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn nothing_starts_by_itself_unless_it_is_told() {
        let (settings, res) = read("");
        assert_eq!(res, Ok(()));
        assert!(
            settings.authorization.is_none() && settings.rules.is_empty() && settings.schedules.is_empty()
        );
        assert_eq!(settings.notified.scope, "all_peers");
    }

    #[test]
    fn occasions_are_what_their_entries_say() {
        let (settings, res) = read(
            "webhook: {authorization: 'Bearer hunter2'}, notifications: {scope: all_seed_peers}, \
             rules: [{repositories: ['prod/**'], tags: ['v*'], platforms: [linux/amd64], regions: [eu, us]}], \
             schedules: [{cron: '0 3 * * 1', image: 'harbor.internal/prod/app:v2', scope: single_seed_peer, regions: ['*']}, \
             {cron: '0 3 * * 1', image: 'harbor.example.com:443/prod/app:v2'}]",
        );
        assert_eq!(res, Ok(()));
        assert_eq!(settings.authorization.as_ref().unwrap().secret().expose(), "Bearer hunter2");
        assert_eq!(settings.notified.scope, "all_seed_peers");
        let [rule] = &settings.rules[..] else { panic!("one rule") };
        assert!(
            rule.repositories.is_match("prod/a/b") && rule.tags.is_match("v1") && !rule.tags.is_match("1")
        );
        assert_eq!(rule.target.platforms, ["linux/amd64"]);
        assert_eq!(rule.target.regions, ["eu", "us"]);
        let [schedule, by_port] = &settings.schedules[..] else { panic!("two schedules") };
        assert_eq!(by_port.request.image, schedule.request.image, "as the API takes it");
        assert_eq!(schedule.request.image.to_string(), "harbor.example.com/prod/app:v2");
        assert_eq!(schedule.request.scope, Scope::SingleSeed);
        assert_eq!(schedule.request.elsewhere, Elsewhere::Everywhere);
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn what_cannot_work_is_named() {
        check("webhook: {authorization: '${SECRET}'}", "has white space around it");
        check("notifications: {scope: all}", "is none of single_seed_peer, all_seed_peers, all_peers");
        check("rules: [{repositories: ['a[']}]", "preheat.rules[0].repositories[0] = \"a[\" is not a glob");
        check("rules: [{platforms: [linux]}]", "is not a platform such as linux/amd64");
        check(
            "rules: [{regions: ['a b']}]",
            "preheat.rules[0].regions[0] = \"a b\" is not of 1 to 63 letters",
        );
        check("notifications: {regions: [eu, '*']}", "preheat.notifications.regions are either \"*\" alone");
        check("schedules: [{}]", "preheat.schedules[0].image is missing");
        check("schedules: [{image: 'evil.example/a:b'}]", "is not an image of a configured registry");
        check(
            "schedules: [{image: 'harbor.example.com/a:b', cron: '0 0 30 2 *'}]",
            "is not the five fields of cron",
        );
        let platforms = vec!["linux/amd64"; 21].join(", ");
        check(
            &format!("schedules: [{{image: 'harbor.example.com/a:b', platforms: [{platforms}]}}]"),
            "are more than a job",
        );
    }
}
