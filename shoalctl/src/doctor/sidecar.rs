//! How the sidecar of this node is, and what it needs: each rule takes what was seen and says what that means.

use http::StatusCode;
use serde_json::Value;
use shoal_oci::RegistryName;
use shoal_sidecar::settings::{ProxySettings, RegistryRule};

use super::finding::Finding;
use super::samples::Samples;
use crate::node::Reply;
use crate::settings::NoSettings;
use crate::table::{bytes, count};

/// How far this clock may be off, in seconds: tickets live for five minutes.
const CLOCK_WARN: u64 = 60;
const CLOCK_FAIL: u64 = 300;
/// Certificates are renewed at two thirds of their life: one that ends so soon, in seconds, should have been.
const CERTIFICATE_WARN: u64 = 3600;

/// Whether the settings file is good; `None` where nothing is wrong with it.
pub fn judge_settings(path: &str, seen: Result<Option<&str>, &NoSettings>) -> Finding {
    let subject = "settings";
    match seen {
        Ok(None) => Finding::ok(subject, format!("{path} is good")),
        // This process has not the environment of that one.
        Ok(Some(mistakes)) if mistakes.lines().skip(1).all(|it| it.contains("which is not set")) => {
            Finding::warn(
                subject,
                format!("{path} takes values from an environment that is not here: {}", in_line(mistakes)),
                "nothing, where the sidecar's own environment has them (`systemctl show shoal-sidecar -p Environment`)",
            )
        }
        Ok(Some(mistakes)) => Finding::fail(
            subject,
            format!("{path} has {}", in_line(mistakes)),
            format!(
                "mend them, and restart the sidecar; `shoal-sidecar --config {path} --check-config` looks again"
            ),
        ),
        Err(NoSettings::Missing) => Finding::fail(
            subject,
            format!("{path} is not there"),
            "name the file that shoal-sidecar is started with (--config): --settings FILE",
        ),
        Err(NoSettings::Unreadable(why)) => {
            Finding::fail(subject, format!("{path} cannot be read: {why}"), "run this as root")
        }
    }
}

fn in_line(mistakes: &str) -> String {
    mistakes.split('\n').map(str::trim).collect::<Vec<_>>().join(" | ")
}

/// Whether the sidecar's admin listener answers.
pub fn judge_health(node: &str, reply: &Reply) -> Finding {
    let subject = "sidecar";
    match reply {
        Ok(answer) if answer.status == StatusCode::OK => Finding::ok(subject, format!("answers at {node}")),
        Ok(answer) => Finding::fail(
            subject,
            format!("{node} says {} to /healthz, as no sidecar does", answer.status.as_u16()),
            "give the address of admin.listen: --node URL",
        ),
        Err(why) => Finding::fail(
            subject,
            format!("does not answer: {why}"),
            "start it (`systemctl start shoal-sidecar`); where it runs, give the address of its admin.listen: --node URL",
        ),
    }
}

/// Whether the sidecar is ready, and what it misses.
pub fn judge_readiness(reply: &Reply) -> Finding {
    let subject = "readiness";
    let Ok(answer) = reply else {
        return Finding::fail(subject, "is not told", "see the finding about the sidecar");
    };
    let words = |all: &Vec<Value>| all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let unmet = answer.json().get("unmet").and_then(Value::as_array).map(words);
    match (answer.status, unmet) {
        (StatusCode::OK, _) => Finding::ok(subject, "ready"),
        (status, Some(unmet)) => Finding::fail(
            subject,
            format!("not ready ({}): waits for {unmet}", status.as_u16()),
            "wait while it starts or stops; where that lasts, its log says why (`journalctl -u shoal-sidecar`)",
        ),
        (status, None) => Finding::fail(
            subject,
            format!("/readyz says {}", status.as_u16()),
            "give the address of admin.listen: --node URL",
        ),
    }
}

/// Whether the mirror answers as a registry does.
pub fn judge_mirror(mirror: &str, reply: &Reply) -> Finding {
    let subject = "mirror";
    match reply {
        Ok(answer) if matches!(answer.status, StatusCode::OK | StatusCode::UNAUTHORIZED) => {
            Finding::ok(subject, format!("answers at {mirror}"))
        }
        Ok(answer) => Finding::fail(
            subject,
            format!("{mirror} says {} to /v2/, as no mirror does", answer.status.as_u16()),
            "find out who listens there (`ss -ltnp`), and give proxy.listen a port of its own",
        ),
        Err(why) => Finding::fail(
            subject,
            format!("does not answer: {why}"),
            "start the sidecar; where it runs, --settings must name the file that it is started with, for proxy.listen",
        ),
    }
}

/// Until when the node's certificate is good. `ends` is the metric, in seconds since 1970, which is 0 without a
/// certificate and absent where none is used.
pub fn judge_certificate(ends: Option<f64>, now: u64) -> Finding {
    let subject = "certificate";
    let renew = "the sidecar's log says `no certificate`, and why: no gateway that is reached, a join token that was \
                 withdrawn (carry sidecar.token anew from the gateway's join directory), a clock that is wrong; files \
                 of one's own have to be renewed by whoever keeps them";
    // Seconds since 1970 are whole, and far from what a float rounds.
    let Some(ends) = ends.map(|it| it as u64) else {
        return Finding::warn(
            subject,
            "none is used: nothing is proven and nothing encrypted",
            "set security.mtls to true, but for tests on one machine",
        );
    };
    match ends.checked_sub(now) {
        _ if ends == 0 => Finding::fail(subject, "the node has none, and no gateway answers it", renew),
        None => Finding::fail(subject, format!("ended {} ago", span(now.saturating_sub(ends))), renew),
        Some(left) if left < CERTIFICATE_WARN => {
            Finding::warn(subject, format!("ends in {}, and should have been renewed", span(left)), renew)
        }
        Some(left) => Finding::ok(subject, format!("good for {} more", span(left))),
    }
}

/// Whether this clock agrees with another's; both in seconds since 1970.
pub fn judge_clock(other: Option<(&str, u64)>, now: u64) -> Finding {
    let subject = "clock";
    let Some((whose, theirs)) = other else {
        return Finding::warn(
            subject,
            "was compared with nobody's",
            "give the gateway's management API: --gateway URL",
        );
    };
    let (off, way) = (now.abs_diff(theirs), if now > theirs { "ahead of" } else { "behind" });
    let what = format!("{} {way} {whose}", span(off));
    let fix = "have both clocks kept by NTP (`timedatectl set-ntp true`, `chronyc makestep`)";
    if off > CLOCK_FAIL {
        return Finding::fail(subject, format!("{what}: tickets and certificates are not believed"), fix);
    }
    if off > CLOCK_WARN {
        return Finding::warn(subject, format!("{what}: tickets end early or late"), fix);
    }
    Finding::ok(subject, format!("within {} s of {whose}", off.max(1)))
}

/// Whether the volume has the room that the sidecar leaves to others; both in bytes.
pub fn judge_disk(dir: &str, free: Result<u64, &str>, floor: u64) -> Finding {
    let subject = "disk";
    let fix = "make room on that volume, or lower storage.diskGCThreshold: what others fill there, the sidecar cannot \
               use";
    let free = match free {
        Ok(free) => free,
        Err(why) => {
            return Finding::fail(
                subject,
                format!("{dir}: {why}"),
                "make that directory, owned by the sidecar's user, or mend storage.dir",
            );
        }
    };
    let what = format!("{} free in {dir}, storage.freeSpaceFloor is {}", bytes(free), bytes(floor));
    match free {
        _ if free < floor => Finding::fail(subject, format!("{what}: nothing is kept or shared"), fix),
        _ if free < floor.saturating_mul(2) => Finding::warn(subject, what, fix),
        _ => Finding::ok(subject, what),
    }
}

/// Whether the disk takes what is fetched; by the metric of pieces that it did not take since the sidecar's start.
pub fn judge_storing(n_unstored: Option<f64>) -> Finding {
    let subject = "store";
    match n_unstored {
        Some(n) if n > 0.0 => Finding::warn(
            subject,
            format!(
                "{} passed through memory since the start, and were not kept",
                count(n as usize, "piece")
            ),
            "is the volume of storage.dir full, read-only or slow (`df`, `iostat`, `dmesg`)?",
        ),
        _ => Finding::ok(subject, "the disk takes what is fetched"),
    }
}

/// Whether the node has streams to the region's schedulers.
pub fn judge_schedulers(samples: &Samples) -> Finding {
    let subject = "schedulers";
    let all = samples.by("shoal_peer_scheduler_connected", "scheduler");
    let away: Vec<_> = all.iter().filter(|(_, value)| *value == 0.0).map(|(it, _)| *it).collect();
    let fix = "`schedulers` of the gateway have to be addresses that nodes reach, and run; the sidecar's log says why \
               connections fail";
    match (all.len(), away.len()) {
        (0, _) => Finding::warn(
            subject,
            "the gateway has named none: the node shares nothing that it is not asked for",
            "is a gateway reached, and does it name them (`schedulers` in its settings)?",
        ),
        (n, 0) => Finding::ok(subject, format!("connected to {}", count(n, "scheduler"))),
        (n, n_away) if n == n_away => {
            Finding::fail(subject, format!("connected to none of {}", away.join(", ")), fix)
        }
        _ => Finding::warn(subject, format!("not connected to {}", away.join(", ")), fix),
    }
}

/// Whether the gateways of the settings take connections.
pub fn judge_gateways(seen: &[(String, Result<(), String>)]) -> Finding {
    let subject = "gateways";
    let away: Vec<_> =
        seen.iter().filter_map(|(it, seen)| Some(format!("{it}: {}", seen.as_ref().err()?))).collect();
    let fix = "is it running, is its address the `listen` of its settings, and does a firewall let this node through \
               (`nc -vz HOST PORT`)?";
    match (seen.len(), away.len()) {
        (0, _) => Finding::fail(
            subject,
            "the settings name none: every pull goes to the registry",
            "name the region's gateways in `gateways`",
        ),
        (n, 0) => Finding::ok(subject, format!("{} of {n} take connections", seen.len())),
        (n, n_away) if n == n_away => {
            Finding::fail(subject, format!("none takes connections: {}", away.join("; ")), fix)
        }
        _ => Finding::warn(subject, away.join("; "), fix),
    }
}

/// Whether the rules for registries are what was meant; `is_readable` says of a file whether it is.
pub fn judge_registries(
    proxy: &ProxySettings,
    is_readable: impl Fn(&std::path::Path) -> bool,
) -> Vec<Finding> {
    if !proxy.dynamic {
        let whose = proxy.default.as_ref().map_or("nothing", |it| it.names.as_str());
        return vec![Finding::ok(
            "registries",
            format!("every request goes to {whose} (registryMirror.dynamic: false)"),
        )];
    }
    if proxy.registries.is_empty() {
        return vec![Finding::fail(
            "registries",
            "proxy.registries names none: runtimes that name a registry are refused, and go past Shoal",
            "name those that this node pulls from: proxy: {registries: [{name: harbor.example.com}]}",
        )];
    }
    let rules = proxy.registries.iter().enumerate();
    rules
        .map(|(at, rule)| judge_registry(rule, proxy.registries.get(..at).unwrap_or_default(), &is_readable))
        .collect()
}

fn judge_registry(
    rule: &RegistryRule,
    before: &[RegistryRule],
    is_readable: impl Fn(&std::path::Path) -> bool,
) -> Finding {
    let name = rule.names.as_str();
    let subject = format!("registry {name}");
    if let Some(ca) = rule.ca.as_deref().filter(|it| !is_readable(it)) {
        let fix = "put the certificates there, or leave `ca` out where the system trusts the registry";
        return Finding::fail(subject, format!("its ca {} cannot be read", ca.display()), fix);
    }
    let parsed: Option<RegistryName> = name.parse().ok();
    let hider = parsed.as_ref().and_then(|name| before.iter().find(|it| it.names.include(name)));
    if let Some(hider) = hider {
        let fix = format!("put {name} before {} in proxy.registries, or leave one out", hider.names.as_str());
        return Finding::warn(
            subject,
            format!("is never used: {} comes first and includes it", hider.names.as_str()),
            fix,
        );
    }
    if name == "*" {
        let fix = "name the registries, or domains of your own: *.corp.example";
        return Finding::warn(subject, "whoever reaches the mirror may have it ask any host", fix);
    }
    let is_plain = rule.url.as_ref().is_some_and(|it| it.scheme() == "http");
    if rule.insecure {
        let how = if is_plain { "plain HTTP" } else { "a certificate that is not verified" };
        let fix = "give its authority in `ca` and leave `insecure` out, where it has TLS";
        return Finding::warn(subject, format!("{how} is accepted: credentials can be read on the way"), fix);
    }
    Finding::ok(subject, "is served")
}

/// Seconds as people read them.
fn span(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use shoal_ask::Answer;

    use super::*;
    use crate::doctor::finding::State;
    use crate::settings::NodeSettings;

    fn reply(status: u16, body: &str) -> Reply {
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Answer { status, headers: HeaderMap::new(), body: body.to_owned().into() })
    }

    #[track_caller]
    fn check(found: Finding, state: State, what: &str, fix: &str) {
        assert_eq!(found.state, state, "{found}");
        assert!(found.what.contains(what), "{what:?} in {found}");
        assert!(found.fix.as_deref().unwrap_or_default().contains(fix), "{fix:?} in {found}");
        assert_eq!(found.fix.is_none(), state == State::Ok, "{found}");
    }

    use State::{Fail, Ok as Good, Warn};

    #[test]
    fn a_sidecar_that_is_not_well_is_told_with_what_to_do() {
        let refused: Reply = Err("http://127.0.0.1:65011/healthz: connection refused".to_owned());
        let node = "http://127.0.0.1:65011";
        check(judge_health(node, &reply(200, "ok\n")), Good, "answers", "");
        check(judge_health(node, &refused), Fail, "connection refused", "systemctl start");
        check(judge_health(node, &reply(404, "")), Fail, "says 404", "admin.listen");
        check(judge_readiness(&reply(200, r#"{"unmet":[]}"#)), Good, "ready", "");
        check(
            judge_readiness(&reply(503, r#"{"unmet":["mirror","running"]}"#)),
            Fail,
            "mirror, running",
            "its log",
        );
        check(judge_readiness(&reply(200, "<html>")), Good, "ready", "");
        check(judge_readiness(&reply(500, "<html>")), Fail, "says 500", "--node");
        check(judge_mirror("127.0.0.1:65001", &reply(200, "{}")), Good, "answers", "");
        check(judge_mirror("127.0.0.1:65001", &reply(401, "")), Good, "answers", "");
        check(judge_mirror("127.0.0.1:65001", &reply(404, "")), Fail, "as no mirror does", "ss -ltnp");
        check(judge_mirror("127.0.0.1:65001", &refused), Fail, "does not answer", "start the sidecar");
    }

    #[test]
    fn settings_that_are_wrong_are_told_from_those_that_cannot_be_judged() {
        let path = "/etc/shoal/sidecar.yaml";
        check(judge_settings(path, Ok(None)), Good, "is good", "");
        let text = NodeSettings::of("{security: {mtls: false}, gateways: [], nane: x}", |_| None).mistakes;
        check(judge_settings(path, Ok(text.as_deref())), Fail, "nane is not a setting", "--check-config");
        let text =
            NodeSettings::of("{security: {joinToken: '${TOKEN}', mtls: false}, gateways: []}", |_| None)
                .mistakes;
        check(judge_settings(path, Ok(text.as_deref())), Warn, "TOKEN", "Environment");
        check(judge_settings(path, Err(&NoSettings::Missing)), Fail, "is not there", "--settings");
        let denied = NoSettings::Unreadable("Permission denied".to_owned());
        check(judge_settings(path, Err(&denied)), Fail, "Permission denied", "root");
    }

    #[test]
    fn a_certificate_and_a_clock_are_good_for_some_time() {
        let now = 1_795_691_000;
        let ends = |after: i64| Some((now + after) as f64);
        let now = now as u64;
        check(judge_certificate(ends(86_400), now), Good, "1day", "");
        check(judge_certificate(ends(600), now), Warn, "ends in 10m", "join token");
        check(judge_certificate(ends(-60), now), Fail, "ended 1m ago", "join token");
        check(judge_certificate(Some(0.0), now), Fail, "has none", "join token");
        check(judge_certificate(None, now), Warn, "none is used", "security.mtls");
        check(judge_clock(Some(("the gateway", now)), now), Good, "within 1 s", "");
        check(judge_clock(Some(("the gateway", now - 60)), now), Good, "within 60 s", "");
        check(judge_clock(Some(("the gateway", now - 61)), now), Warn, "1m 1s ahead of the gateway", "NTP");
        check(judge_clock(Some(("the gateway", now + 301)), now), Fail, "5m 1s behind the gateway", "NTP");
        check(judge_clock(None, now), Warn, "nobody", "--gateway");
    }

    #[test]
    fn a_disk_without_room_or_that_takes_nothing_is_told() {
        check(judge_disk("/d", Ok(10 << 30), 1 << 30), Good, "10.00 GiB free", "");
        check(judge_disk("/d", Ok(3 << 29), 1 << 30), Warn, "1.50 GiB free", "diskGCThreshold");
        check(judge_disk("/d", Ok(1 << 20), 1 << 30), Fail, "nothing is kept", "make room");
        check(judge_disk("/d", Err("No such file or directory"), 1), Fail, "No such file", "storage.dir");
        check(judge_storing(Some(0.0)), Good, "takes", "");
        check(judge_storing(None), Good, "takes", "");
        check(judge_storing(Some(12.0)), Warn, "12 pieces", "dmesg");
    }

    #[test]
    fn who_is_not_reached_is_named() {
        let metrics = |all: &[(&str, u8)]| {
            let line = |(name, up): &(&str, u8)| {
                format!("shoal_peer_scheduler_connected{{scheduler=\"{name}\"}} {up}\n")
            };
            Samples::parse(&all.iter().map(line).collect::<String>())
        };
        check(judge_schedulers(&metrics(&[("https://s1", 1)])), Good, "1 scheduler", "");
        check(judge_schedulers(&metrics(&[("https://s1", 1), ("https://s2", 0)])), Warn, "https://s2", "log");
        check(judge_schedulers(&metrics(&[("https://s1", 0)])), Fail, "none of https://s1", "log");
        check(judge_schedulers(&metrics(&[])), Warn, "has named none", "schedulers");
        let up = ("https://g1".to_owned(), Ok(()));
        let down = ("https://g2".to_owned(), Err("connection refused".to_owned()));
        check(judge_gateways(std::slice::from_ref(&up)), Good, "1 of 1", "");
        check(judge_gateways(&[up, down.clone()]), Warn, "https://g2: connection refused", "nc -vz");
        check(judge_gateways(&[down]), Fail, "none takes connections", "nc -vz");
        check(judge_gateways(&[]), Fail, "name none", "`gateways`");
    }

    #[test]
    fn rules_for_registries_are_looked_through() {
        let rules = |rules: &str| {
            let text = format!("{{security: {{mtls: false}}, gateways: [], proxy: {{{rules}}}}}");
            let settings = NodeSettings::of(&text, |_| None);
            assert_eq!(settings.mistakes, None);
            judge_registries(&settings.sidecar.proxy, |it| it != std::path::Path::new("/ca.pem"))
        };
        let table = [
            ("registries: [{name: a.example}]", Good, "is served", ""),
            ("registries: []", Fail, "names none", "harbor.example.com"),
            ("registryMirror: {dynamic: false}", Good, "every request goes to docker.io", ""),
            (
                "registries: [{name: a.example, ca: /ca.pem}]",
                Fail,
                "/ca.pem cannot be read",
                "leave `ca` out",
            ),
            (
                "registries: [{name: '*.example'}, {name: a.example}]",
                Warn,
                "is never used",
                "before *.example",
            ),
            ("registries: [{name: '*'}]", Warn, "any host", "*.corp.example"),
            ("registries: [{name: a.example, url: 'http://a:1', insecure: true}]", Warn, "plain HTTP", "TLS"),
            (
                "registries: [{name: a.example, url: 'https://a', insecure: true}]",
                Warn,
                "not verified",
                "`ca`",
            ),
        ];
        for (text, state, what, fix) in table {
            check(rules(text).pop().unwrap(), state, what, fix);
        }
    }
}
