//! One HTTP/1.1 exchange over a bare socket: a test sees what a runtime sees of a mirror, namely how fast
//! headers come, how the body is framed, and in which way the connection ends.
//!
//! A wait that takes too long is itself a finding, so it fails the exchange. A mirror promises an answer
//! within 2 s by its own clock, if only an error, and uses all of that where the gateway is silent. Seen
//! from outside it takes a little longer, by what lies between the two processes: a connection, a link that
//! others fill, a processor that is busy. That much is stated apart, so that the promise stays in sight.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fleet::Fleet;
use crate::host::Host;
use crate::image::{Blob, Image};

/// Within this, by its own clock, a mirror has answered.
const PROMISED: Duration = Duration::from_secs(2);
/// What a busy machine may add to it; a second promise would not fit in.
const MACHINE: Duration = Duration::from_millis(500);
/// The longest silence within a body.
const SILENCE: Duration = Duration::from_secs(45);
/// Where a node's mirror listens.
pub const MIRROR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 65001);
const MAX_HEAD: usize = 64 << 10;
/// What is compared at a time.
const BUFFER: usize = 16 << 10;

/// An exchange whose headers have come.
#[derive(Debug)]
pub struct Exchange {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    stream: TcpStream,
}

/// What there was of a body, and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// How it ended.
    pub ending: Ending,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With all its bytes.
    Whole,
    /// Early, by a closed connection, after which a runtime resumes.
    Fin,
    /// Early, by a reset, at which a runtime fails.
    Rst,
}

impl Fleet {
    /// Asks the sidecar of a node, counted from 0, for a blob. `headers` are lines such as
    /// `Range: bytes=5-`.
    pub async fn read(&self, node: usize, image: &Image, blob: &Blob, headers: &[&str]) -> Result<Exchange> {
        Exchange::send(&self.sidecars[node].host, "GET", &self.blob_target(image, blob)?, headers).await
    }

    /// Path and query by which a mirror is asked for a blob.
    pub fn blob_target(&self, image: &Image, blob: &Blob) -> Result<String> {
        target(self.ask_blob(image, blob))
    }

    /// Asks the sidecar of a node whether there is a blob.
    pub async fn head(&self, node: usize, image: &Image, blob: &Blob) -> Result<Exchange> {
        let target = target(self.ask_blob(image, blob))?;
        Exchange::send(&self.sidecars[node].host, "HEAD", &target, &[]).await
    }

    /// Asks the sidecar of a node whether there is an image, as containerd does first.
    pub async fn head_manifest(&self, node: usize, image: &Image) -> Result<Exchange> {
        let target = target(self.ask(&format!("{}/manifests/{}", image.repository, image.tag)))?;
        let accept = format!("Accept: {}", image.media_type());
        Exchange::send(&self.sidecars[node].host, "HEAD", &target, &[&accept]).await
    }
}

fn target(request: http::request::Builder) -> Result<String> {
    let target = request.uri_ref().and_then(|it| it.path_and_query()).map(ToString::to_string);
    target.context("the request has no path")
}

impl Exchange {
    /// Sends a request without a body to the mirror on a host, and waits for the headers. `target` is path
    /// and query, `headers` are lines such as `Range: bytes=5-`.
    pub async fn send(from: &Host, method: &str, target: &str, headers: &[&str]) -> Result<Self> {
        Self::over(from.connect(MIRROR).await?, method, target, headers).await
    }

    /// The same over a connection that is there already.
    pub async fn over(mut stream: TcpStream, method: &str, target: &str, headers: &[&str]) -> Result<Self> {
        let lines: String = headers.iter().map(|it| format!("{it}\r\n")).collect();
        let request = format!("{method} {target} HTTP/1.1\r\nhost: mirror\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let limit = PROMISED + MACHINE;
        timeout(limit, Self::read_head(stream))
            .await
            .with_context(|| format!("{method} {target}: no headers within {limit:?}"))?
            .with_context(|| format!("{method} {target}"))
    }

    async fn read_head(mut stream: TcpStream) -> Result<Self> {
        let mut bytes = Vec::new();
        let head_len = loop {
            if let Some(at) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(bytes.len() < MAX_HEAD, "{} bytes and no end of the headers", bytes.len());
            ensure!(stream.read_buf(&mut bytes).await? > 0, "closed before the headers were complete");
        };
        let body = bytes.split_off(head_len);
        let head = String::from_utf8(bytes).context("headers: not text")?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|it| it.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|it| it.split_once(": "));
        Ok(Self {
            status: status.with_context(|| format!("no status in {head:?}"))?,
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.into())).collect(),
            body,
            stream,
        })
    }

    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The length of the body as stated. Bodies of mirrors must state it, so one without is an error.
    pub fn stated_len(&self) -> Result<usize> {
        let stated = self.header("content-length").with_context(|| format!("no length: {:?}", self.headers));
        Ok(stated?.parse()?)
    }

    /// Reads on until so many bytes of the body are there, and fails when it ends before.
    pub async fn read_to(&mut self, n_bytes: usize) -> Result<()> {
        while self.body.len() < n_bytes {
            if let Some(ending) = self.read_more().await? {
                bail!("{ending:?} after {} bytes, before {n_bytes}", self.body.len());
            }
        }
        Ok(())
    }

    /// Reads to the end, good or bad.
    pub async fn finish(mut self) -> Result<Ended> {
        let len = self.stated_len()?;
        let ending = loop {
            if self.body.len() >= len {
                break Ending::Whole;
            }
            if let Some(ending) = self.read_more().await? {
                break ending;
            }
        };
        Ok(Ended { body: self.body, ending })
    }

    /// Reads to the end, and fails unless it is all of the blob.
    pub async fn finish_with(self, blob: &Blob) -> Result<()> {
        ensure!(matches!(self.status, 200 | 206), "{}: status {}", blob.digest, self.status);
        let Ended { body, ending } = self.finish().await?;
        ensure!(ending == Ending::Whole, "{ending:?} after {} of {} bytes", body.len(), blob.bytes.len());
        let first = body.iter().zip(&blob.bytes).position(|(is, should)| is != should);
        match first {
            None => Ok(()),
            Some(first) => bail!("{}: other content from byte {first} on", blob.digest),
        }
    }

    /// Reads to the end, keeping nothing, and fails unless these are all the bytes.
    pub async fn compare_with(mut self, expected: &[u8]) -> Result<()> {
        let mut n_read = 0;
        loop {
            let end = n_read + self.body.len();
            ensure!(expected.get(n_read..end) == Some(&self.body), "other content within {n_read}..{end}");
            n_read = end;
            if n_read == expected.len() {
                return Ok(());
            }
            self.body.clear();
            self.body.reserve(BUFFER);
            if let Some(ending) = self.read_more().await? {
                bail!("{ending:?} after {n_read} of {} bytes", expected.len());
            }
        }
    }

    async fn read_more(&mut self) -> Result<Option<Ending>> {
        let read = timeout(SILENCE, self.stream.read_buf(&mut self.body));
        match read.await.with_context(|| format!("silent for {SILENCE:?} after {} bytes", self.body.len()))? {
            Ok(0) => Ok(Some(Ending::Fin)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Some(Ending::Rst)),
            Err(error) => Err(error.into()),
        }
    }
}
