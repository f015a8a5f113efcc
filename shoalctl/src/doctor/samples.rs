//! Metrics as a service shows them at `/metrics`, in the OpenMetrics format: so much of it as is looked at.
//!
//! A line that is not understood is passed over: what it would have told is then not told.

use std::collections::BTreeMap;

/// One value.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What a service counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Reads a page.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|it| !it.starts_with('#')).filter_map(sample).collect())
    }

    /// The value of a metric; the sum, where it has labels.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let values: Vec<_> = self.named(name).map(|it| it.value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The values of a metric by one of its labels.
    pub fn by(&self, name: &str, label: &str) -> Vec<(&str, f64)> {
        self.named(name).filter_map(|it| Some((it.labels.get(label)?.as_str(), it.value))).collect()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |it| it.name == name)
    }
}

/// `name{label="value",...} 1.5`, with what may follow the value.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after;
    }
}

/// A text up to its closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = r#"# HELP shoal_store_unstored_pieces Pieces that the disk did not take.
# TYPE shoal_store_unstored_pieces counter
shoal_store_unstored_pieces_total 3
shoal_certificate_expiry_timestamp_seconds 1795691000
shoal_peer_scheduler_connected{scheduler="https://10.0.0.1:65005"} 1
shoal_peer_scheduler_connected{scheduler="a \"b\" \\ }",other="x"} 0
shoal_sidecar_pulls_total{outcome="complete"} 2 # {} 1 1795691000.1
shoal_sidecar_pulls_total{outcome="left"} 0.5
broken{
broken
broken{a="b
 # EOF
"#;

    #[test]
    fn what_is_counted_is_found_by_its_name() {
        let samples = Samples::parse(PAGE);
        assert_eq!(samples.sum("shoal_store_unstored_pieces_total"), Some(3.0));
        assert_eq!(samples.sum("shoal_sidecar_pulls_total"), Some(2.5));
        assert_eq!(samples.sum("shoal_nothing"), None);
        assert_eq!(
            samples.by("shoal_peer_scheduler_connected", "scheduler"),
            [("https://10.0.0.1:65005", 1.0), ("a \"b\" \\ }", 0.0)]
        );
    }

    proptest! {
        #[test]
        fn no_page_makes_it_panic(text in "[a-z_{}=\"\\\\, 0-9.#\n]{0,80}") {
            Samples::parse(&text);
        }
    }
}
