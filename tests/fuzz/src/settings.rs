//! Settings files: whatever an operator writes is taken, or is refused with mistakes of one line each, none of
//! which shows what came from the environment.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value};
use shoal_ops::settings::Reader;

use crate::input::{parts, text, word};

/// What every environment variable holds but one that is not set.
const SECRET: &str = "hunter2-hunter2-hunter2";
/// What some setting or other can be, or just cannot.
const VALUES: [&str; 32] = [
    "${SECRET}",
    "",
    "true",
    "false",
    "0",
    "1",
    "100",
    "65536",
    "-1",
    "1.5",
    "4Mi",
    "1Gi/s",
    "5s",
    "100ms",
    "9999999h",
    "auto",
    "off",
    "-",
    "/var/lib/a",
    "127.0.0.1:1",
    "0.0.0.0:1",
    "10.0.0.1",
    "https://a.example:1",
    "http://a.example",
    "a.example",
    "docker.io",
    "*.corp",
    "[",
    "$${SECRET}",
    "${UNSET}",
    "${",
    "gateway",
];

struct Service {
    default: &'static str,
    /// Lists of groups, and what an item of each is.
    lists: &'static [(&'static str, &'static str)],
    read: fn(&Reader) -> String,
}

/// Takes a settings file of the gateway's.
pub fn gateway(data: &[u8]) {
    static TREE: LazyLock<Tree> = LazyLock::new(|| SERVICE.tree());
    const SERVICE: Service = Service {
        default: shoal_gateway::settings::DEFAULT,
        lists: &[
            ("registries", include_str!("../../../gateway/config/registry.yaml")),
            ("tokens", include_str!("../../../gateway/config/management-token.yaml")),
            ("rules", include_str!("../../../gateway/config/preheat-rule.yaml")),
            ("schedules", include_str!("../../../gateway/config/preheat-schedule.yaml")),
        ],
        read: |it| format!("{:?}", shoal_gateway::settings::Settings::read(it)),
    };
    SERVICE.check(&TREE, data);
}

/// Takes a settings file of the scheduler's.
pub fn scheduler(data: &[u8]) {
    static TREE: LazyLock<Tree> = LazyLock::new(|| SERVICE.tree());
    const SERVICE: Service = Service {
        default: shoal_scheduler::settings::DEFAULT,
        lists: &[],
        read: |it| format!("{:?}", shoal_scheduler::settings::Settings::read(it)),
    };
    SERVICE.check(&TREE, data);
}

/// Takes a settings file of a sidecar's.
pub fn sidecar(data: &[u8]) {
    static TREE: LazyLock<Tree> = LazyLock::new(|| SERVICE.tree());
    const SERVICE: Service = Service {
        default: shoal_sidecar::settings::DEFAULT,
        lists: &[
            ("registries", include_str!("../../../sidecar/config/registry.yaml")),
            ("proxies", "regx: ''"),
        ],
        read: |it| format!("{:?}", shoal_sidecar::settings::Settings::read(it)),
    };
    SERVICE.check(&TREE, data);
}

/// The default settings, with an item in each list of groups.
struct Tree(Value);

impl Service {
    fn tree(&self) -> Tree {
        let parse = |text| serde_saphyr::from_str::<Value>(text).expect("the service's own YAML");
        let mut tree = parse(self.default);
        for (list, item) in self.lists {
            fill(&mut tree, list, &parse(item));
        }
        Tree(tree)
    }

    fn check(&self, tree: &Tree, data: &[u8]) {
        let Some(text) = text(data, |u| Ok(value(u, &tree.0)?.to_string())) else { return };
        let reader = Reader::new(&text, self.default, |name| (name != "UNSET").then(|| SECRET.to_owned()));
        (self.read)(&reader);
        let Err(mistakes) = reader.finish() else { return };
        let mistakes = mistakes.to_string();
        let (n_mistakes, _) = mistakes.split_once(' ').unwrap_or_default();
        let n_lines = mistakes.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() - 1;
        assert_eq!(n_mistakes, n_lines.to_string(), "{mistakes:?}");
        assert!(!mistakes.contains(|it: char| it.is_control() && it != '\n'), "{mistakes:?}");
        assert!(text.contains(SECRET) || !mistakes.contains(SECRET), "{mistakes}");
    }
}

/// Puts the item into every list of this name.
fn fill(tree: &mut Value, list: &str, item: &Value) {
    for (name, value) in tree.as_object_mut().into_iter().flatten() {
        match value {
            Value::Array(items) if name == list => *items = vec![item.clone()],
            _ => fill(value, list, item),
        }
    }
}

/// A part of the tree, with some values and keys made others.
fn value(u: &mut Unstructured<'_>, default: &Value) -> Result<Value> {
    Ok(match default {
        Value::Object(group) => Value::Object(entries(u, group)?),
        Value::Array(items) => {
            let mut made = Vec::new();
            let usual = Value::Null;
            parts(u, 2, |u| {
                made.push(value(u, items.first().unwrap_or(&usual))?);
                Ok(())
            })?;
            Value::Array(made)
        }
        _ if u.ratio(1, 16)? => Value::Array(Vec::new()),
        _ => word(u, &VALUES)?.into(),
    })
}

fn entries(u: &mut Unstructured<'_>, group: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut made = Map::new();
    for (key, default) in group {
        // Few, so that one mistake does not hide what others would lead to.
        if u.ratio(1, 4)? {
            let key = if u.ratio(1, 32)? { word(u, &["nmae", "a.b", "a\nb"])? } else { key.as_str() };
            made.insert(key.to_owned(), value(u, default)?);
        }
    }
    Ok(made)
}
