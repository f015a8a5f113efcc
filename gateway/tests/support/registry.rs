//! A registry on loopback, with a token service, that answers only what a test put into it and notes
//! everything that it was asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use shoal_oci::range::{self, ByteRange, ContentRange};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::digest;

/// The body of a refusal that a test asked for.
pub(crate) const REFUSAL: &str = r#"{"errors":[{"code":"REFUSED","detail":"as it is"}]}"#;

/// What goes wrong with the next GET of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The connection ends after this many bytes of the body.
    BreakAfter(usize),
    /// One byte of the body is another.
    WrongByte,
    /// 429 with `Retry-After` in seconds.
    TooMany(u32),
    /// The registry refuses the token that it gave, once.
    TokenExpired,
    /// A part that does not say which.
    Somewhere,
    /// This status, with an error in the body.
    Status(u16),
    /// No answer at all.
    Silence,
}

/// One request as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    /// The names of all headers.
    pub(crate) headers: Vec<String>,
}

/// The registry; clones are the same.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Each blob's body waits for a permit before its first byte; many unless a test takes them away.
    pub(crate) gate: Arc<Semaphore>,
    /// The same for each token.
    pub(crate) tokens: Arc<Semaphore>,
    /// How many requests there were.
    n_asked: Arc<watch::Sender<usize>>,
}

#[derive(Default)]
struct State {
    content: BTreeMap<String, Bytes>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    asked: Vec<Asked>,
    /// The Basic credential that buys a token, where one is needed.
    secret: Option<String>,
    /// Repositories, and the credentials that open them besides; the empty one stands for everybody.
    rights: BTreeSet<(String, String)>,
    n_tokens: usize,
    /// The challenge, where it is not that of a token service here.
    challenge: Option<String>,
    /// How long a HEAD takes.
    dawdles: Duration,
    /// Where blobs lie, if not here.
    store: Option<SocketAddr>,
    /// Headers that every manifest and blob comes with.
    headers: Vec<(&'static str, &'static str)>,
}

impl Registry {
    /// A registry that is open to everybody.
    pub(crate) async fn open() -> Self {
        Self::start(None).await
    }

    /// A registry with a token service that takes this Basic credential.
    pub(crate) async fn with_secret(secret: &str) -> Self {
        Self::start(Some(secret.to_owned())).await
    }

    async fn start(secret: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let it = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(Mutex::new(State { secret, ..State::default() })),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            tokens: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            n_asked: Arc::default(),
        };
        let registry = it.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = registry.clone();
                // The client may go at any time.
                tokio::spawn(async move { drop(registry.converse(stream).await) });
            }
        });
        it
    }

    /// Answers one request and hangs up. Written by hand, because a server library cannot be made to stop
    /// at exactly one byte.
    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            match line.trim_end() {
                "" => break,
                text => head.push(text.to_owned()),
            }
        }
        let Some(asked) = Asked::parse(&head) else { return Ok(()) };
        let answer = self.answer(&asked).await;
        let len = if asked.method == Method::HEAD { 0 } else { answer.sent.unwrap_or(answer.body.len()) };
        stream.write_all(answer.head().as_bytes()).await?;
        stream.write_all(&answer.body[..len]).await?;
        stream.shutdown().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts a blob into a repository.
    pub(crate) fn put_blob(&self, repository: &str, content: &[u8]) {
        let path = format!("/v2/{repository}/blobs/{}", digest(content));
        self.state().content.insert(path, Bytes::copy_from_slice(content));
    }

    /// Puts a manifest into a repository.
    pub(crate) fn put_manifest(&self, repository: &str, reference: &str, content: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.state().content.insert(path, Bytes::copy_from_slice(content));
    }

    /// What goes wrong with the next GETs of a blob, in order.
    pub(crate) fn fail(&self, repository: &str, content: &[u8], faults: &[Fault]) {
        let path = format!("/v2/{repository}/blobs/{}", digest(content));
        self.state().faults.entry(path).or_default().extend(faults);
    }

    /// What goes wrong with the next GETs of a manifest, in order.
    pub(crate) fn fail_manifest(&self, repository: &str, reference: &str, faults: &[Fault]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.state().faults.entry(path).or_default().extend(faults);
    }

    /// Opens a repository to whoever shows this `Authorization`; to everybody where it is empty.
    pub(crate) fn let_in(&self, repository: &str, authorization: &str) {
        self.state().rights.insert((repository.to_owned(), authorization.to_owned()));
    }

    /// Takes such a right away.
    pub(crate) fn shut_out(&self, repository: &str, authorization: &str) {
        self.state().rights.remove(&(repository.to_owned(), authorization.to_owned()));
    }

    /// The requests for blobs and manifests so far, by method.
    pub(crate) fn asked(&self, method: &Method) -> Vec<Asked> {
        let is_content = |it: &&Asked| it.path != "/v2/" && it.path != "/token" && it.method == method;
        self.state().asked.iter().filter(is_content).cloned().collect()
    }

    /// Waits until there were so many requests for blobs and manifests, by method.
    pub(crate) async fn until_asked(&self, method: &Method, n_times: usize) {
        let mut n_asked = self.n_asked.subscribe();
        n_asked.wait_for(|_| self.asked(method).len() >= n_times).await.unwrap();
    }

    /// How many logins were tried at the token service.
    pub(crate) fn n_logins(&self) -> usize {
        self.state().asked.iter().filter(|it| it.path == "/token").count()
    }

    /// Challenges from now on with this `WWW-Authenticate`.
    pub(crate) fn challenge_with(&self, challenge: &str) {
        self.state().challenge = Some(challenge.to_owned());
    }

    /// Takes this Basic credential from now on, and no token that was given before.
    pub(crate) fn take_only(&self, secret: &str) {
        let mut state = self.state();
        state.secret = Some(secret.to_owned());
        state.n_tokens += 1;
    }

    /// Redirects GETs of blobs from now on to a store, by addresses that are signed for one GET each.
    pub(crate) fn send_blobs_to(&self, store: SocketAddr) {
        self.state().store = Some(store);
    }

    /// Says this with every manifest and blob from now on.
    pub(crate) fn say(&self, name: &'static str, value: &'static str) {
        self.state().headers.push((name, value));
    }

    /// What the token service was asked for, in order.
    pub(crate) fn token_queries(&self) -> Vec<String> {
        let state = self.state();
        state.asked.iter().filter(|it| it.path == "/token").map(|it| it.query.clone()).collect()
    }

    /// Every HEAD takes this long from now on.
    pub(crate) fn dawdle(&self, time: Duration) {
        self.state().dawdles = time;
    }

    /// How many tokens were given.
    pub(crate) fn n_tokens(&self) -> usize {
        self.state().n_tokens
    }

    async fn answer(&self, asked: &Asked) -> Answer {
        self.state().asked.push(asked.clone());
        self.n_asked.send_modify(|it| *it += 1);
        if asked.method == Method::HEAD {
            let dawdles = self.state().dawdles;
            tokio::time::sleep(dawdles).await;
        }
        match asked.path.as_str() {
            "/token" => {
                self.tokens.acquire().await.unwrap().forget();
                self.give_token(asked)
            }
            _ if !self.admits(asked) => self.challenge(),
            "/v2/" => Answer::new(200, "{}"),
            _ => self.give_content(asked).await,
        }
    }

    fn give_token(&self, asked: &Asked) -> Answer {
        let mut state = self.state();
        if asked.authorization != state.secret {
            return Answer::new(401, "no");
        }
        state.n_tokens += 1;
        Answer::new(200, format!(r#"{{"token":"token-{}"}}"#, state.n_tokens))
    }

    /// The newest token and the secret itself open everything.
    fn admits(&self, asked: &Asked) -> bool {
        let state = self.state();
        let token = format!("Bearer token-{}", state.n_tokens);
        let shown = asked.authorization.clone().unwrap_or_default();
        let opens = |right: &(String, String)| {
            asked.path.starts_with(&format!("/v2/{}/", right.0)) && (right.1.is_empty() || right.1 == shown)
        };
        state.secret.is_none()
            || asked.authorization == state.secret
            || asked.authorization == Some(token)
            || state.rights.iter().any(opens)
    }

    fn challenge(&self) -> Answer {
        let usual = || format!(r#"Bearer realm="http://{}/token",service="fake""#, self.address);
        let challenge = self.state().challenge.clone().unwrap_or_else(usual);
        Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).with("WWW-Authenticate", challenge)
    }

    async fn give_content(&self, asked: &Asked) -> Answer {
        let (content, fault, store, headers) = {
            let mut state = self.state();
            let (store, headers) = (state.store, state.headers.clone());
            let Some(content) = state.content.get(&asked.path).cloned() else {
                return Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#);
            };
            let faults = state.faults.get_mut(&asked.path).filter(|_| asked.method == Method::GET);
            (content, faults.and_then(VecDeque::pop_front), store, headers)
        };
        if asked.method == Method::GET {
            self.gate.acquire().await.unwrap().forget();
        }
        let mut answer = part(asked.range.as_deref(), &content).with("Docker-Content-Digest", "as-it-is");
        if let Some(media_type) = media_type(&content) {
            answer = answer.with("Content-Type", media_type);
        }
        for (name, value) in headers {
            answer = answer.with(name, value);
        }
        match fault {
            None if asked.method == Method::GET && asked.path.contains("/blobs/") => match store {
                None => answer,
                Some(store) => Answer::new(307, "").with(
                    "Location",
                    format!("http://{store}{}?X-Amz-Signature=of-{}", asked.path, asked.method),
                ),
            },
            None => answer,
            Some(Fault::BreakAfter(len)) => Answer { sent: Some(len), ..answer },
            Some(Fault::WrongByte) => {
                let mut body = answer.body.to_vec();
                body[0] ^= 1;
                Answer { body: body.into(), ..answer }
            }
            Some(Fault::TooMany(seconds)) => Answer::new(429, "").with("Retry-After", seconds.to_string()),
            Some(Fault::TokenExpired) => self.challenge(),
            Some(Fault::Somewhere) => Answer::new(206, content.slice(content.len() / 2..)),
            Some(Fault::Status(status)) => Answer::new(status, REFUSAL),
            Some(Fault::Silence) => std::future::pending().await,
        }
    }
}

impl Asked {
    fn parse(head: &[String]) -> Option<Self> {
        let mut first = head.first()?.split(' ');
        let header = |name: &str| {
            let mut headers = head.iter().filter_map(|it| it.split_once(": "));
            headers.find(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1.to_owned())
        };
        let method = first.next()?.parse().ok()?;
        let target = first.next()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            range: header("range"),
            authorization: header("authorization"),
            headers: head
                .iter()
                .skip(1)
                .filter_map(|it| Some(it.split_once(':')?.0.to_lowercase()))
                .collect(),
        })
    }
}

/// What is sent back.
struct Answer {
    status: u16,
    headers: String,
    body: Bytes,
    /// How much of the body is sent, where not all.
    sent: Option<usize>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: String::new(), body: body.into(), sent: None }
    }

    fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    fn head(&self) -> String {
        let Self { status, headers, body, .. } = self;
        format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len())
    }
}

/// The media type that a manifest states.
fn media_type(content: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(content).ok()?;
    manifest.get("mediaType")?.as_str().map(str::to_owned)
}

fn part(asked: Option<&str>, content: &Bytes) -> Answer {
    let size = content.len() as u64;
    match asked.map(|it| range::parse(it, size)) {
        Some(ByteRange::Part(part)) => {
            let body = content.slice(part.start as usize..part.end as usize);
            let told = ContentRange::Part { range: part, size: Some(size) };
            Answer::new(206, body).with("Content-Range", told)
        }
        _ => Answer::new(200, content.clone()),
    }
}
