//! A gateway's management API, asked in the operator's name.
//!
//! Lists come in pages and are read to their end, up to a bound. A gateway that is asked too often says when to come back,
//! and is obeyed. The token goes into one header and is printed nowhere.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use shoal_ask::{Answer, Http};
use shoal_ops::settings::{Secret, Setting as _};
use tokio::time::sleep;
use url::Url;
use url::form_urlencoded::Serializer;

use crate::cli::{GATEWAY, Reach};
use crate::fault::{Exit, Fault, refusal, unreached};

/// How long the gateway may take for an answer: it gives schedulers 10 s.
const DEADLINE: Duration = Duration::from_secs(15);
/// The same where it removes blobs from all nodes: it gives them 27 s.
const REMOVAL: Duration = Duration::from_secs(40);
/// How many entries a page has, the most that the gateway allows.
const PER_PAGE: usize = 100;
/// How many pages of a list are read.
const MAX_PAGES: usize = 100;
/// How often a gateway that says "too often" is asked again, and how long it is waited for at most.
const MAX_TRIES: usize = 10;
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A gateway.
pub struct Gateway(Http);

/// An answer that is a success.
pub struct Said {
    /// Its status.
    pub status: StatusCode,
    /// The document.
    pub document: Value,
}

impl Gateway {
    /// The gateway that the command line names; `token` is what the environment holds.
    ///
    /// # Errors
    /// Where a file that was named is of no use.
    pub fn new(reach: &Reach, token: Option<Secret>) -> Result<Self, Fault> {
        let token = match &reach.token_file {
            Some(file) => Some(read_token(&file.display().to_string())?),
            None => token,
        };
        let authorization = token.map(|it| HeaderValue::from_str(&format!("Bearer {}", it.expose())));
        let authorization = authorization.transpose().map_err(|_| {
            Fault::usage("the token cannot stand in a header", "give the token and nothing else, in one line")
        })?;
        let base = reach.gateway.clone().map_or_else(default, Ok)?;
        let http = Http::new(base, reach.ca_file.as_deref(), authorization);
        http.map(Self).map_err(|it| Fault::usage(format!("--ca-file {it}"), "name a file of certificates"))
    }

    /// Its address.
    pub fn address(&self) -> &Url {
        self.0.base()
    }

    /// Whether it answers at all; whoever asks needs no token for that.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn healthy(&self) -> Result<Answer, Fault> {
        self.0.ask(Method::GET, "/healthy", None, DEADLINE).await.map_err(|it| unreached(&it))
    }

    /// A document.
    ///
    /// # Errors
    /// Where there is none to be had.
    pub async fn get(&self, path: &str) -> Result<Value, Fault> {
        Ok(self.ask(Method::GET, path, None).await?.document)
    }

    /// Has something done.
    ///
    /// # Errors
    /// Where it is not done.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Said, Fault> {
        let deadline = if path.ends_with("/purge") { REMOVAL } else { DEADLINE };
        for _ in 0..MAX_TRIES {
            let answer =
                self.0.ask(method.clone(), path, body, deadline).await.map_err(|it| unreached(&it))?;
            match wait(&answer) {
                Some(time) => sleep(time).await,
                None => return said(&format!("{method} {path}"), &answer),
            }
        }
        let answer = self.0.ask(method.clone(), path, body, deadline).await.map_err(|it| unreached(&it))?;
        said(&format!("{method} {path}"), &answer)
    }

    /// All entries of a list that has `next`, page after page, as one document.
    ///
    /// # Errors
    /// Where a page is not to be had.
    pub async fn list(
        &self,
        path: &str,
        field: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<Value, Fault> {
        let mut pages = Pages::default();
        for _ in 0..MAX_PAGES {
            let page = self.get(&page(path, query, pages.next.as_deref())).await?;
            if !page.get(field).is_some_and(Value::is_array) {
                return Err(strange(&format!("GET {path}")));
            }
            if !pages.add(field, page) {
                break;
            }
        }
        Ok(pages.document(field))
    }
}

/// What goes between two slashes of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn default() -> Result<Url, Fault> {
    Url::parse(GATEWAY).map_err(|it| Fault::usage(it.to_string(), "give --gateway"))
}

fn read_token(file: &str) -> Result<Secret, Fault> {
    let secret = Secret::read(&format!("file:{file}"));
    let fix = "name a file that holds the management token, and that you may read";
    let secret = secret.map_err(|it| Fault::usage(format!("--token-file {file} {it}"), fix))?;
    if secret.expose().is_empty() {
        return Err(Fault::usage(format!("--token-file {file} is empty"), fix));
    }
    Ok(secret)
}

/// How long the gateway wants to be left alone. Too many jobs are another matter: that may last.
fn wait(answer: &Answer) -> Option<Duration> {
    let seconds = answer.header(RETRY_AFTER).filter(|_| answer.status == StatusCode::TOO_MANY_REQUESTS)?;
    Some(Duration::from_secs(seconds.parse().ok()?).min(LONGEST_WAIT))
}

fn said(asked: &str, answer: &Answer) -> Result<Said, Fault> {
    if !answer.status.is_success() {
        return Err(refusal(asked, answer));
    }
    let document = answer.json();
    if document.is_null() {
        return Err(strange(asked));
    }
    Ok(Said { status: answer.status, document })
}

fn strange(asked: &str) -> Fault {
    let what = format!("gateway answers {asked} with something else than its API does");
    let fix = "is --gateway the address of a gateway's management.listen?";
    Fault::new(Exit::Unreachable, what, fix)
}

fn page(path: &str, query: &[(&str, Option<&str>)], after: Option<&str>) -> String {
    let mut text = Serializer::new(String::new());
    let given = query.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    text.extend_pairs(given.chain(after.map(|it| ("after", it))));
    text.append_pair("per_page", &PER_PAGE.to_string());
    format!("{path}?{}", text.finish())
}

/// The pages of a list, as one.
#[derive(Default)]
struct Pages {
    entries: Vec<Value>,
    /// Who did not answer, as each page says; each once.
    incomplete: Vec<Value>,
    /// What the next page goes on after, if there is one.
    next: Option<String>,
}

impl Pages {
    /// Takes a page in; true where there is another.
    fn add(&mut self, field: &str, mut page: Value) -> bool {
        let mut taken = |field: &str| match page.get_mut(field).map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        self.entries.extend(taken(field));
        for silent in taken("incomplete") {
            if !self.incomplete.contains(&silent) {
                self.incomplete.push(silent);
            }
        }
        let next = page.get("next").and_then(Value::as_str).map(str::to_owned);
        // A gateway that repeats itself must not be asked for ever.
        let goes_on = next.is_some() && next != self.next;
        self.next = next;
        goes_on
    }

    fn document(self, field: &str) -> Value {
        json!({ field: self.entries, "next": self.next, "incomplete": self.incomplete })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_list_is_asked_for_page_by_page() {
        let query = [("state", Some("FETCHING")), ("registry", None)];
        assert_eq!(page("/t", &query, None), "/t?state=FETCHING&per_page=100");
        assert_eq!(page("/t", &[], Some("a@sha256:1")), "/t?after=a%40sha256%3A1&per_page=100");
        assert_eq!(segment("a.b@c:1/d"), "a%2Eb%40c%3A1%2Fd");
    }

    #[test]
    fn pages_become_one_document() {
        let mut pages = Pages::default();
        let silent = json!({ "scheduler": "https://s:1", "cause": "refused" });
        assert!(pages.add("tasks", json!({ "tasks": [1, 2], "next": "b", "incomplete": [silent] })));
        assert!(pages.add("tasks", json!({ "tasks": [], "next": "c", "incomplete": [silent] })));
        assert!(!pages.add("tasks", json!({ "tasks": [3], "next": null, "incomplete": [] })));
        let expected = json!({ "tasks": [1, 2, 3], "next": null, "incomplete": [silent] });
        assert_eq!(pages.document("tasks"), expected);

        let mut repeated = Pages::default();
        assert!(repeated.add("tasks", json!({ "tasks": [1], "next": "b" })));
        assert!(!repeated.add("tasks", json!({ "tasks": [1], "next": "b" })));
    }

    #[test]
    fn a_gateway_says_when_to_come_back() {
        let answer = |status, seconds: Option<&'static str>| {
            let headers: HeaderMap =
                seconds.map(|it| (RETRY_AFTER, HeaderValue::from_static(it))).into_iter().collect();
            Answer { status, headers, body: Default::default() }
        };
        let seconds = |it| wait(&it).map(|it| it.as_secs());
        assert_eq!(seconds(answer(StatusCode::TOO_MANY_REQUESTS, Some("1"))), Some(1));
        assert_eq!(seconds(answer(StatusCode::TOO_MANY_REQUESTS, Some("3600"))), Some(5));
        assert_eq!(seconds(answer(StatusCode::TOO_MANY_REQUESTS, None)), None, "too many jobs");
        assert_eq!(seconds(answer(StatusCode::SERVICE_UNAVAILABLE, Some("1"))), None);
    }

    #[test]
    fn what_is_no_document_is_no_answer() {
        let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: "<html>".into() };
        let fault = said("GET /", &answer).err().unwrap();
        assert!(fault.what.contains("something else than its API does"), "{fault}");
    }
}
