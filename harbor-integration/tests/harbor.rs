//! Setting a Harbor up, checking it, and taking everything away again; with the real gateway behind it.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(clippy::result_large_err, reason = "an answer is as large as it is")]
mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::json;
use shoal_harbor::check::{State, check};
use shoal_harbor::settings::{DEFAULT, Settings};
use shoal_harbor::setup::{Options, remove, set_up};
use shoal_ops::Context;
use shoal_ops::settings::Reader;
use tempfile::TempDir;

use support::double::{ADMIN, Double};

const NOW: i64 = 1_800_000_000;
const HOOK: &str = "Bearer hook-secret";

/// A token that an operator made, and its hash.
const TOKEN: &str = "shoal_3985dac9_cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

/// A Harbor, a gateway, and what they are to be for each other.
struct Scene {
    harbor: Double,
    gateway: String,
    dir: TempDir,
    _ctx: Context,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (gateway, ctx) = gateway(&dir).await;
        Self { harbor: Double::start(&["production", "base", "1234"]).await, gateway, dir, _ctx: ctx }
    }

    fn secret_file(&self) -> PathBuf {
        self.dir.path().join("robot-secret")
    }

    /// The settings, changed by further YAML.
    fn settings(&self, change: &[(&str, &str)]) -> Settings {
        let mut values = vec![
            ("URL", format!("http://{}", self.harbor.address)),
            ("PASSWORD", ADMIN.1.to_owned()),
            ("GATEWAY", self.gateway.clone()),
            ("TOKEN", TOKEN.to_owned()),
            ("HOOK", HOOK.to_owned()),
            ("SECRET_FILE", self.secret_file().display().to_string()),
            ("VENDOR", "dragonfly".to_owned()),
            (
                "PROJECTS",
                "[{name: production}, {name: '1234', preheat: {trigger: manual, tags: 'v*'}}]".to_owned(),
            ),
            ("ROBOT", "shoal".to_owned()),
        ];
        for (name, value) in change {
            values.iter_mut().find(|(it, _)| it == name).unwrap().1 = (*value).to_owned();
        }
        let projects = values.iter().find(|(it, _)| *it == "PROJECTS").unwrap().1.clone();
        let user = format!(
            "
harbor: {{url: '${{URL}}', username: {}, password: '${{PASSWORD}}'}}
gateway: {{url: '${{GATEWAY}}', token: '${{TOKEN}}', webhookAuthorization: '${{HOOK}}'}}
instance: {{vendor: '${{VENDOR}}'}}
robot: {{name: '${{ROBOT}}', secretFile: '${{SECRET_FILE}}'}}
projects: {projects}
",
            ADMIN.0
        );
        let env = move |name: &str| values.iter().find(|(it, _)| *it == name).map(|(_, value)| value.clone());
        let reader = Reader::new(&user, DEFAULT, env);
        let settings = Settings::read(&reader);
        reader.finish().unwrap();
        settings
    }

    async fn set_up(&self, change: &[(&str, &str)], options: Options) -> (anyhow::Result<usize>, String) {
        let mut said = String::new();
        let done = set_up(&self.settings(change), options, NOW, &mut |it| said += &format!("{it}\n")).await;
        assert!(!said.contains(TOKEN) && !said.contains("hook-secret") && !said.contains("Secret"), "{said}");
        (done, said)
    }

    async fn ready() -> Self {
        let scene = Self::new().await;
        scene.set_up(&[], Options::default()).await.0.unwrap();
        scene.harbor.writes();
        scene
    }

    /// What is wrong, with what is to be done.
    async fn faults(&self, change: &[(&str, &str)]) -> Vec<String> {
        let found = check(&self.settings(change), NOW).await;
        let shown = found.iter().map(ToString::to_string).collect::<String>();
        assert!(
            !shown.contains(TOKEN) && !shown.contains("hook-secret") && !shown.contains(ADMIN.1),
            "{shown}"
        );
        let bad = found.iter().filter(|it| matches!(it.state, State::Bad { .. }));
        bad.map(ToString::to_string).collect()
    }

    #[track_caller]
    fn only(faults: &[String], subject: &str, fault: &str, fix: &str) {
        let [text] = faults else { panic!("one fault, {subject} {fault:?}, and not {faults:#?}") };
        assert!(text.contains(subject) && text.contains(fault) && text.contains(fix), "{text}");
    }
}

/// An address of this process's own: nobody else has the port between its being chosen and its being used.
fn own_address() -> SocketAddr {
    static N_GIVEN: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 78, high, low], 20_000 + N_GIVEN.fetch_add(1, Ordering::Relaxed)))
}

/// A gateway that takes the token and the webhook's header, and its management address.
async fn gateway(dir: &TempDir) -> (String, Context) {
    let address = own_address();
    let user = format!(
        "
listen: '127.0.0.1:0'
security: {{mtls: false}}
storage: {{dir: '{}', freeSpaceFloor: 0}}
management:
  listen: '{address}'
  requestsPerSecond: 1000
  tokens:
    - {{name: harbor, hash: 'sha256:{HASH}', scopes: [preheat]}}
preheat: {{webhook: {{authorization: '{HOOK}'}}}}
registries: [{{name: harbor.example.com}}]
",
        dir.path().join("gateway").display()
    );
    let reader = Reader::new(&user, shoal_gateway::settings::DEFAULT, |_| None);
    let settings = shoal_gateway::settings::Settings::read(&reader);
    reader.finish().unwrap();
    let ctx = Context::new("gateway", "0");
    shoal_gateway::start(settings, ctx.clone()).await.unwrap();
    (format!("http://{address}"), ctx)
}

/// The SHA-256 of the token's secret.
const HASH: &str = "3985dac9133f8144ae1ab001dd0a29dffdddb1bf14a5f95aa24c8eed2e5bde2c";

#[tokio::test]
async fn a_second_set_up_changes_nothing() {
    let scene = Scene::new().await;
    let (n, said) = scene.set_up(&[], Options { dry_run: true, ..Options::default() }).await;
    assert_eq!((n.unwrap(), scene.harbor.writes()), (6, vec![]), "{said}");
    assert!(said.contains("create  preheat policy 1234/shoal") && !scene.secret_file().exists(), "{said}");

    let (n, said) = scene.set_up(&[], Options::default()).await;
    assert_eq!(n.unwrap(), 6, "{said}");
    assert_eq!(
        scene.harbor.writes(),
        [
            "POST /robots",
            "POST /instances",
            "POST /production/preheat",
            "POST /production/webhook",
            "POST /1234/preheat",
            "POST /1234/webhook",
        ]
    );
    let secret = scene.secret_file();
    assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(secret).unwrap();
    assert_eq!(scene.harbor.state().secrets["robot$shoal"], secret);

    let (n, said) = scene.set_up(&[], Options::default()).await;
    assert_eq!((n.unwrap(), scene.harbor.writes()), (0, vec![]), "{said}");
    assert!(said.lines().all(|it| it.starts_with("keep ")), "{said}");
    assert_eq!(std::fs::read_to_string(scene.secret_file()).unwrap(), secret);
    assert_eq!(scene.faults(&[]).await, [""; 0]);
}

#[tokio::test]
async fn harbor_is_set_up_with_the_least_right_and_a_token_in_oauth() {
    let scene = Scene::ready().await;
    let state = scene.harbor.state();
    let robot = state.robots.values().next().unwrap();
    let right = |project: &str| {
        let access = [json!({ "resource": "repository", "action": "pull" })];
        json!({ "kind": "project", "namespace": project, "access": access })
    };
    assert_eq!(
        (&robot["level"], &robot["permissions"]),
        (&json!("system"), &json!([right("production"), right("1234")]))
    );
    let instance = state.instances.values().next().unwrap();
    assert_eq!(
        (&instance["auth_mode"], &instance["auth_info"]),
        (&json!("OAUTH"), &json!({ "token": TOKEN }))
    );
    let policy = state.policies.values().find(|it| it["project_id"] == 3).unwrap();
    assert_eq!(policy["provider_id"], instance["id"]);
    assert_eq!(policy["extra_attrs"], "{\"scope\":\"all_peers\"}");
    let webhook = state.webhooks.values().next().unwrap();
    let address = format!("{}/webhooks/harbor", scene.gateway);
    assert_eq!(
        (&webhook["targets"][0]["address"], &webhook["targets"][0]["auth_header"]),
        (&json!(address), &json!(HOOK))
    );
}

#[tokio::test]
async fn only_what_differs_is_changed() {
    let scene = Scene::ready().await;
    scene.harbor.state().policies.values_mut().next().unwrap()["enabled"] = false.into();
    scene.harbor.state().instances.values_mut().next().unwrap()["default"] = true.into();
    let other = TOKEN.replace("3985dac9", "00000000");
    let (n, said) = scene.set_up(&[("TOKEN", &other)], Options::default()).await;
    assert_eq!(n.unwrap(), 2, "{said}");
    assert_eq!(scene.harbor.writes(), ["PUT /instances/shoal", "PUT /production/preheat/shoal"]);
    assert!(said.contains("enabled: none -> true"), "{said}");
    let instance = scene.harbor.state().instances.values().next().unwrap().clone();
    assert_eq!((&instance["auth_info"]["token"], &instance["default"]), (&json!(other), &json!(true)));
}

#[tokio::test]
async fn what_others_made_is_left_alone() {
    let scene = Scene::ready().await;
    scene.harbor.state().webhooks.values_mut().next().unwrap()["description"] = "tells the chat".into();
    let (done, _) = scene.set_up(&[], Options::default()).await;
    let error = done.unwrap_err().to_string();
    assert!(error.contains("nothing was changed") && error.contains("webhook production/shoal"), "{error}");

    let mut said = String::new();
    let n = remove(&scene.settings(&[]), false, &mut |it| said += &format!("{it}\n")).await.unwrap();
    assert_eq!(n, 5, "{said}");
    assert!(said.contains("leave   webhook production/shoal"), "{said}");
    let state = scene.harbor.state();
    assert_eq!(
        (state.robots.len(), state.instances.len(), state.policies.len(), state.webhooks.len()),
        (0, 0, 0, 1)
    );
    assert!(!scene.secret_file().exists());
}

#[tokio::test]
async fn what_harbor_refuses_is_told_in_its_own_words() {
    let scene = Scene::ready().await;
    let running = *scene.harbor.state().policies.keys().last().unwrap();
    scene.harbor.state().running.push(running);
    let error = remove(&scene.settings(&[]), false, &mut |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("412") && error.contains("is running, stop it and retry"), "{error}");
}

#[tokio::test]
async fn nothing_is_made_where_a_secret_could_not_be_kept() {
    let scene = Scene::new().await;
    let (done, _) = scene.set_up(&[("SECRET_FILE", "/nonexistent/secret")], Options::default()).await;
    let error = format!("{:#}", done.unwrap_err());
    assert!(error.contains("robot.secretFile: /nonexistent/secret.new"), "{error}");
    assert_eq!(scene.harbor.writes(), [""; 0]);
}

#[tokio::test]
async fn a_robot_gets_another_secret_when_it_is_asked_for_or_has_expired() {
    let scene = Scene::ready().await;
    let read = || std::fs::read_to_string(scene.secret_file()).unwrap();
    let first = read();
    let (n, said) = scene.set_up(&[], Options { new_secret: true, ..Options::default() }).await;
    assert_eq!((n.unwrap(), scene.harbor.writes().len()), (1, 1), "{said}");
    let second = read();
    assert_ne!(first, second);
    assert_eq!(scene.faults(&[]).await, [""; 0]);

    scene.harbor.state().robots.values_mut().next().unwrap()["expires_at"] = (NOW - 1).into();
    Scene::only(&scene.faults(&[]).await, "robot$shoal", "has expired", "run `setup`");
    let (n, said) = scene.set_up(&[], Options::default()).await;
    assert_eq!(n.unwrap(), 1, "{said}");
    assert!(scene.harbor.writes()[0].starts_with("DELETE /robots/"));
    assert_ne!(read(), second);
    assert_eq!(scene.faults(&[]).await, [""; 0]);
}

#[tokio::test]
async fn a_changed_prefix_of_robots_is_read_and_not_guessed() {
    let scene = Scene::new().await;
    scene.harbor.state().robot_prefix = "bot-";
    scene.set_up(&[], Options::default()).await.0.unwrap();
    assert_eq!(scene.set_up(&[], Options::default()).await.0.unwrap(), 0);
    assert_eq!(scene.harbor.state().robots.values().next().unwrap()["name"], "bot-shoal");
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let scene = Scene::ready().await;
    let others = (1_000..1_150)
        .map(|id| (id, json!({ "id": id, "name": format!("i{id}"), "endpoint": format!("http://h{id}") })));
    {
        let mut state = scene.harbor.state();
        let ours = state.instances.pop_first().unwrap();
        state.instances.extend(others);
        // Policies go on referring to it by its number.
        state.instances.insert(5_000, {
            let mut it = ours.1;
            it["id"] = 5_000.into();
            it
        });
        state.policies.values_mut().for_each(|it| it["provider_id"] = 5_000.into());
    }
    assert_eq!(scene.set_up(&[], Options::default()).await.0.unwrap(), 0);
}

#[tokio::test]
async fn each_broken_set_up_is_named() {
    let scene = Scene::ready().await;
    let nobody = "http://127.0.0.1:9";
    for (change, subject, fault, fix) in [
        (("PASSWORD", "wrong"), "harbor", "for a stranger", "mend harbor.username or harbor.password"),
        (("URL", nobody), "harbor", "Connection refused", "is harbor.url its address"),
        (("URL", &*scene.gateway), "harbor", "404", "is harbor.url its address"),
        (("HOOK", "Bearer other"), "webhook", "", "webhookAuthorization"),
    ] {
        let faults = scene.faults(&[change]).await;
        let named = faults.iter().any(|it| it.contains(subject) && it.contains(fault) && it.contains(fix));
        assert!(named, "{change:?}: {faults:#?}");
    }
    let unknown = TOKEN.replace("cdcd", "abab");
    let faults = scene.faults(&[("TOKEN", &unknown)]).await;
    Scene::only(&faults, "token 3985dac9", "does not know it", "make one with the scope preheat");
    // Harbor goes on asking the old gateway, which answers.
    let faults = scene.faults(&[("GATEWAY", nobody)]).await;
    assert!(faults[0].contains("gateway") && faults[0].contains("Connection refused"), "{faults:#?}");

    let break_and_mend =
        async |change: &dyn Fn(&mut support::double::Inner), subject: &str, fault: &str, fix: &str| {
            let before = {
                let mut state = scene.harbor.state();
                let before = (
                    state.robots.clone(),
                    state.instances.clone(),
                    state.policies.clone(),
                    state.webhooks.clone(),
                );
                change(&mut state);
                before
            };
            Scene::only(&scene.faults(&[]).await, subject, fault, fix);
            let mut state = scene.harbor.state();
            (state.robots, state.instances, state.policies, state.webhooks) = before;
            (state.notifies, state.version) = (true, "v2.16.0");
        };
    break_and_mend(&|it| it.notifies = false, "notification_enable", "sends no webhooks", "switch it on")
        .await;
    break_and_mend(&|it| it.version = "v2.11.2", "harbor's version", "older way", "instance.vendor: kraken")
        .await;
    break_and_mend(&|it| it.robots.clear(), "robot shoal", "is not there", "run `setup`").await;
    break_and_mend(
        &|it| it.policies.retain(|_, it| it["project_id"] != 1),
        "preheat policy production/shoal",
        "is not there",
        "run `setup`",
    )
    .await;
    break_and_mend(
        &|it| it.webhooks.retain(|_, it| it["project_id"] != 1),
        "webhook production/shoal",
        "is not there",
        "run `setup`",
    )
    .await;
    break_and_mend(
        &|it| {
            it.policies.values_mut().for_each(|it| {
                if it["project_id"] == 1 {
                    it["enabled"] = false.into()
                }
            })
        },
        "preheat policy production/shoal",
        "enabled: none -> true",
        "run `setup`",
    )
    .await;
    break_and_mend(
        &|it| {
            it.webhooks.values_mut().for_each(|it| {
                if it["project_id"] == 1 {
                    it["targets"][0]["auth_header"] = "x".into()
                }
            })
        },
        "webhook production/shoal",
        "auth_header: another value",
        "run `setup`",
    )
    .await;
    break_and_mend(
        &|it| it.instances.values_mut().for_each(|it| it["auth_info"] = json!({})),
        "preheat instance shoal",
        "Harbor does not reach the gateway",
        "must be reached from Harbor",
    )
    .await;
    break_and_mend(
        &|it| it.instances.values_mut().for_each(|it| it["description"] = "mine".into()),
        "preheat instance shoal",
        "this command has not made it",
        "choose another name",
    )
    .await;

    std::fs::write(scene.secret_file(), "not-its-own").unwrap();
    Scene::only(&scene.faults(&[]).await, "robot$shoal", "not its own", "setup --new-secret");
    std::fs::remove_file(scene.secret_file()).unwrap();
    Scene::only(&scene.faults(&[]).await, "robot$shoal", "No such file", "setup --new-secret");
    scene.harbor.state().projects.remove("1234");
    let faults = scene.faults(&[]).await;
    assert!(
        faults.iter().any(|it| it.contains("project 1234") && it.contains("is not there")),
        "{faults:#?}"
    );
}
