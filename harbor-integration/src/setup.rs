//! Setting Harbor up, and taking everything away again.
//!
//! All is looked at before anything is changed: where something cannot be done, nothing is. What is as it is wanted is
//! left alone, so a second run changes nothing, and one that broke off is simply run again.
//!
//! Harbor tells a robot's secret once. That it can be kept is found out before the robot is made; where it could not be
//! kept after all, the robot is taken away again.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;
use shoal_ops::private_file;

use crate::harbor::Harbor;
use crate::object::{Difference, Kind, Object, is_ours};
use crate::settings::Settings;

/// What is to be done about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Keep,
    Create,
    Update(Vec<Difference>),
    /// A robot that has expired comes back under a secret of its own.
    Replace,
    /// For this reason nothing can be done.
    Refuse(String),
}

/// How a set-up is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only tells what would be done.
    pub dry_run: bool,
    /// Has Harbor make the robot another secret.
    pub new_secret: bool,
}

/// Harbor and what it shall be.
struct Work<'a> {
    harbor: Harbor,
    settings: &'a Settings,
    prefix: String,
    /// Seconds since 1970.
    now: i64,
}

/// Sets Harbor up, tells each step to `say`, and returns how many things were changed, or would be.
///
/// # Errors
/// Where Harbor refuses, or cannot be asked; what was changed before that stays.
pub async fn set_up(
    settings: &Settings,
    options: Options,
    now: i64,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<usize> {
    let work = Work::begin(settings, now).await?;
    work.need_projects().await?;
    let mut seen = Vec::new();
    work.pass(Options { dry_run: true, ..options }, &mut |it| seen.push(it)).await?;
    if options.dry_run {
        seen.iter().for_each(|it| say(it.to_string()));
    }
    let refused: Vec<_> = seen.iter().filter(|it| matches!(it.change, Change::Refuse(_))).collect();
    if let [first, ..] = &refused[..] {
        anyhow::bail!("nothing was changed: {first}");
    }
    if !options.dry_run {
        work.pass(options, &mut |it| say(it.to_string())).await?;
    }
    Ok(seen.iter().filter(|it| it.change != Change::Keep || it.new_secret).count())
}

/// Takes away what [`set_up`] made, and returns how many things that were, or would be.
///
/// # Errors
/// Where Harbor refuses, or cannot be asked; what was taken away before that is gone.
pub async fn remove(
    settings: &Settings,
    dry_run: bool,
    say: &mut dyn FnMut(String),
) -> anyhow::Result<usize> {
    let work = Work::begin(settings, 0).await?;
    let mut n_removed = 0;
    // What others refer to goes last.
    for object in Object::all(settings).into_iter().rev() {
        let Some(found) = work.find(&object).await? else { continue };
        if !is_ours(&found) {
            say(format!("leave   {object}: this command has not made it"));
            continue;
        }
        say(format!("remove  {object}"));
        n_removed += 1;
        if dry_run {
            continue;
        }
        work.harbor.delete(&object, &found).await?;
        if let (Kind::Robot, Some(robot)) = (object.kind, &settings.robot) {
            // The secret is good for nothing now; where the file is gone already, all is well.
            let _ = std::fs::remove_file(&robot.secret_file);
        }
    }
    Ok(n_removed)
}

/// One object and what is done about it, to be shown.
struct Step {
    object: Object,
    change: Change,
    new_secret: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, change, new_secret } = self;
        match change {
            Change::Keep if !new_secret => write!(f, "keep    {object}")?,
            Change::Keep => write!(f, "change  {object}")?,
            Change::Create => write!(f, "create  {object}")?,
            Change::Replace => write!(f, "replace {object}, which has expired: it gets another secret")?,
            Change::Refuse(reason) => write!(f, "refuse  {object}: {reason}")?,
            Change::Update(differences) => {
                write!(f, "change  {object}")?;
                differences.iter().try_for_each(|it| write!(f, "\n          {it}"))?;
            }
        }
        if *new_secret { write!(f, "\n          another secret") } else { Ok(()) }
    }
}

impl<'a> Work<'a> {
    async fn begin(settings: &'a Settings, now: i64) -> anyhow::Result<Self> {
        let harbor = Harbor::new(&settings.harbor).context("harbor.ca")?;
        anyhow::ensure!(
            harbor.about().await?.version.is_some(),
            "harbor does not know harbor.username, or not with this harbor.password"
        );
        let prefix = if settings.robot.is_some() { harbor.robot_prefix().await? } else { String::new() };
        Ok(Self { harbor, settings, prefix, now })
    }

    async fn need_projects(&self) -> anyhow::Result<()> {
        for project in &self.settings.projects {
            let name = &project.name;
            let is_there = self.harbor.has_project(name).await?;
            anyhow::ensure!(
                is_there,
                "nothing was changed: there is no project {name}; make it in Harbor first"
            );
        }
        Ok(())
    }

    /// Goes through all objects, those first that others refer to.
    async fn pass(&self, options: Options, say: &mut dyn FnMut(Step)) -> anyhow::Result<()> {
        let mut instance = None;
        for object in Object::all(self.settings) {
            let object = object.provided_by(instance);
            let others = self.harbor.list(object.kind, object.project.as_deref()).await?;
            let found = others.iter().find(|it| object.is_named(it, &self.prefix));
            let change = change(&object, found, &others, self.now);
            let has_secret = object.kind == Kind::Robot && found.is_some() && change != Change::Replace;
            let step = Step { new_secret: options.new_secret && has_secret, change, object };
            if !options.dry_run {
                self.carry_out(&step, found).await.with_context(|| step.object.to_string())?;
            }
            if step.object.kind == Kind::Instance {
                let found = if options.dry_run { found.cloned() } else { self.find(&step.object).await? };
                instance = found.and_then(|it| it["id"].as_i64());
            }
            say(step);
        }
        Ok(())
    }

    async fn find(&self, object: &Object) -> anyhow::Result<Option<Value>> {
        let all = self.harbor.list(object.kind, object.project.as_deref()).await?;
        Ok(all.into_iter().find(|it| object.is_named(it, &self.prefix)))
    }

    async fn carry_out(&self, step: &Step, found: Option<&Value>) -> anyhow::Result<()> {
        let Step { object, change, new_secret } = step;
        match (change, found) {
            (Change::Create, _) if object.kind == Kind::Robot => self.make_robot(object).await?,
            (Change::Create, _) => {
                self.harbor.create(object).await?;
            }
            (Change::Update(_), Some(found)) => self.harbor.update(object, found).await?,
            (Change::Replace, Some(found)) => {
                self.harbor.delete(object, found).await?;
                self.make_robot(object).await?;
            }
            _ => {}
        }
        if let (true, Some(found), Some(file)) = (*new_secret, found, self.secret_file()) {
            try_out(file)?;
            keep(file, &self.harbor.new_secret(object, found).await?)?;
        }
        Ok(())
    }

    fn secret_file(&self) -> Option<&Path> {
        self.settings.robot.as_ref().map(|it| &*it.secret_file)
    }

    async fn make_robot(&self, object: &Object) -> anyhow::Result<()> {
        let Some(file) = self.secret_file() else { return Ok(()) };
        try_out(file)?;
        let made = match self.harbor.create(object).await {
            Ok(made) => made,
            Err(error) => {
                let _ = std::fs::remove_file(draft(file));
                return Err(error.into());
            }
        };
        if let Err(error) = keep(file, &made) {
            self.harbor.delete(object, &made).await.context("take the robot away again")?;
            return Err(error.context("the robot was taken away again"));
        }
        Ok(())
    }
}

/// What is to be done so that `found`, one of `others`, becomes the object.
fn change(object: &Object, found: Option<&Value>, others: &[Value], now: i64) -> Change {
    let Some(found) = found else {
        let endpoint = object.to_create()["endpoint"].clone();
        return match others.iter().find(|it| !endpoint.is_null() && it["endpoint"] == endpoint) {
            // Harbor has each address once only.
            Some(other) => {
                let name = &other["name"];
                Change::Refuse(format!(
                    "instance {name} has the same address: remove it, or name it instance.name"
                ))
            }
            None => Change::Create,
        };
    };
    if !is_ours(found) {
        let reason =
            "another one has that name, which this command has not made: remove it, or choose another name";
        return Change::Refuse(reason.to_owned());
    }
    let differences = object.differences(found);
    if differences.iter().any(|it| it.is_about("vendor")) {
        return Change::Refuse("harbor keeps an instance's vendor as it is: `remove` first".to_owned());
    }
    if object.kind == Kind::Robot && has_expired(found, now) {
        return Change::Replace;
    }
    if differences.is_empty() { Change::Keep } else { Change::Update(differences) }
}

/// Whether a robot's time is over.
pub(crate) fn has_expired(robot: &Value, now: i64) -> bool {
    robot["expires_at"].as_i64().is_some_and(|it| it != -1 && it <= now)
}

/// What [`private_file::replace`] writes to at first.
fn draft(file: &Path) -> PathBuf {
    let mut draft = OsString::from(file);
    draft.push(".new");
    draft.into()
}

/// Finds out whether the file can be written.
fn try_out(file: &Path) -> anyhow::Result<()> {
    let draft = draft(file);
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
    open.with_context(|| format!("robot.secretFile: {}", draft.display()))?;
    Ok(())
}

/// Writes the secret down that Harbor tells.
fn keep(file: &Path, made: &Value) -> anyhow::Result<()> {
    let secret = made["secret"].as_str().filter(|it| !it.is_empty()).context("harbor has told no secret")?;
    private_file::replace(file, secret.as_bytes())
        .with_context(|| format!("robot.secretFile: {}", file.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_ops::settings::Reader;

    use super::*;
    use crate::settings::DEFAULT;

    fn objects(vendor: &str) -> Vec<Object> {
        let user = format!(
            "{{harbor: {{url: 'https://harbor.example.com', username: a, password: b}}, gateway: {{url: \
             'https://g.example.com', token: shoal_0a1b2c3d_x}}, instance: {{vendor: {vendor}}}, projects: [{{name: p}}]}}"
        );
        let reader = Reader::new(&user, DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        reader.finish().unwrap();
        Object::all(&settings)
    }

    #[track_caller]
    fn check(object: &Object, found: Option<&Value>, others: &[Value], expected: &str) {
        let step =
            Step { change: change(object, found, others, 1_000), object: object.clone(), new_secret: false };
        assert!(step.to_string().starts_with(expected), "{step}");
    }

    #[test]
    fn only_what_differs_is_changed_and_only_what_is_ours() {
        let [robot, instance, _] = &objects("dragonfly")[..] else { panic!("three objects") };
        let mut found = robot.to_create();
        check(robot, None, &[], "create  robot shoal");
        check(robot, Some(&found), &[], "keep    robot shoal");
        for (expires, expected) in [(-1, "keep"), (1_001, "keep"), (1_000, "replace")] {
            found["expires_at"] = expires.into();
            check(robot, Some(&found), &[], expected);
        }
        found["expires_at"] = (-1).into();
        found["disable"] = true.into();
        check(robot, Some(&found), &[], "change  robot shoal\n          disable: true -> none");
        found["description"] = "pulls for CI".into();
        check(robot, Some(&found), &[], "refuse  robot shoal: another one has that name");

        let other = json!({ "name": "old", "endpoint": "https://g.example.com" });
        check(
            instance,
            None,
            &[other],
            "refuse  preheat instance shoal: instance \"old\" has the same address",
        );
        let other = json!({ "name": "old", "endpoint": "https://h.example.com" });
        check(instance, None, &[other], "create");
        check(
            instance,
            Some(&objects("kraken")[1].to_create()),
            &[],
            "refuse  preheat instance shoal: harbor keeps",
        );
    }
}
