//! Whether what is described of a body is what its reader reads.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::fields::Mistakes;

/// The example of a body has to be taken, and each field that is described to be read: given something of another kind,
/// the reader names it. The example shows every field whose reading depends on others.
#[track_caller]
pub(crate) fn check<T: ToSchema, R: std::fmt::Debug>(read: impl Fn(&[u8]) -> Result<R, Mistakes>) {
    let schema = serde_json::to_value(T::schema()).unwrap();
    let example = schema["example"].clone();
    assert!(
        read(example.to_string().as_bytes()).is_ok(),
        "{} is refused: {:?}",
        T::name(),
        read(example.to_string().as_bytes())
    );
    let mut paths = Vec::new();
    fields(&schema, String::new(), &mut paths);
    assert!(!paths.is_empty(), "{}: nothing is described: {schema:#}", T::name());
    for (path, is_object) in paths {
        let mut body = example.clone();
        put(&mut body, &path, if is_object { json!(7) } else { json!({ "no": 1 }) });
        let name = path.rsplit('/').next().unwrap();
        let Mistakes(mistakes) = read(body.to_string().as_bytes()).expect_err(&path);
        assert!(mistakes.iter().any(|it| it.contains(name)), "{path}: {mistakes:?}");
    }
}

/// The names of a body's fields on the outermost level.
pub(crate) fn names<T: ToSchema>() -> Vec<String> {
    let schema = serde_json::to_value(T::schema()).unwrap();
    let mut names: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    names.sort();
    names
}

/// The pointers to all fields that a schema describes, and whether they are objects.
fn fields(schema: &Value, at: String, paths: &mut Vec<(String, bool)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        // What may be null is an alternative of that and what it may be else.
        let alternatives = ["oneOf", "anyOf"].iter().find_map(|it| field[*it].as_array());
        let field = alternatives.and_then(|it| it.iter().find(|it| it["type"] != "null")).unwrap_or(field);
        let kinds = &field["type"];
        let is = |kind: &str| *kinds == kind || kinds.as_array().is_some_and(|it| it.contains(&json!(kind)));
        let path = format!("{at}/{name}");
        paths.push((path.clone(), is("object")));
        fields(field, path.clone(), paths);
        fields(&field["items"], format!("{path}/0"), paths);
    }
}

/// Puts a value where there may be none yet.
fn put(body: &mut Value, path: &str, value: Value) {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap_or_else(|| panic!("the example has nothing at {parent}"));
    parent[name] = value;
}
