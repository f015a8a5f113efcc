//! `get`: a blob by way of this node's mirror, into a file.
//!
//! The bytes go into `FILE.part` as they come, and through the hash. Where the stream breaks, it is asked for the rest, and
//! so it is by a later call: what `FILE.part` holds is hashed anew then. Only what matches the digest gets its name.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use shoal_ask::Answer;
use shoal_model::Digest;
use shoal_oci::manifest::MAX_LEN;
use shoal_oci::range::ContentRange;
use tokio::time::{sleep, timeout};

use crate::cli::Get;
use crate::fault::{Exit, Fault};
use crate::image::WantedBlob;
use crate::node::{MIRROR_DEADLINE, Node, refused, unreached};
use crate::progress::Progress;
use crate::run::Outcome;
use crate::settings::{NodeSettings, mirror};
use crate::table::{bytes, percent};

/// How long a stream may stand still.
const STALL: Duration = Duration::from_secs(60);
/// How often it is asked for the rest without a byte having come, and how long after the last time.
const MAX_TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Fetches the blob.
///
/// # Errors
/// Where it is not there, whole and verified, in the end.
pub async fn get(asked: &Get) -> Result<Outcome, Fault> {
    let blob = WantedBlob::parse(&asked.blob)?;
    let mirror = Node::mirror(mirror(NodeSettings::load(&asked.on).ok().as_ref()))?;
    let mut part = Part::open(&asked.output)?;
    let (mut progress, mut n_tries) = (Progress::new(), 0);
    loop {
        let held = part.held;
        match fetch(&mirror, &blob, &mut part, &mut progress).await {
            Ok(()) => break,
            Err(fault) if fault.exit != Exit::Unreachable => return Err(fault),
            Err(_) if part.held > held => n_tries = 0,
            Err(_) if n_tries < MAX_TRIES => n_tries += 1,
            Err(fault) => return Err(fault),
        }
        sleep(PAUSE).await;
    }
    drop(progress);
    let n_bytes = part.held;
    part.finish(&blob.digest, &asked.output)?;
    let text = format!("{}: {}, matches {}\n", asked.output.display(), bytes(n_bytes), blob.digest);
    Ok(Outcome { text, exit: Exit::Done })
}

/// Asks for what is missing and writes it as it comes.
async fn fetch(
    mirror: &Node,
    blob: &WantedBlob,
    part: &mut Part,
    progress: &mut Progress,
) -> Result<(), Fault> {
    let path = format!("/v2/{}/blobs/{}?ns={}", blob.place.repository, blob.digest, blob.place.registry);
    let answer = mirror.http().open(&path, range(part.held), MIRROR_DEADLINE).await;
    let (head, body) = answer.map_err(|it| unreached(&it))?.into_parts();
    let plan = plan(part.held, head.status, &head.headers);
    let size = match plan {
        Plan::Append { size } => size,
        Plan::Anew { size } => {
            part.clear()?;
            size
        }
        Plan::Whole => return Ok(()),
        Plan::Discard => {
            part.clear()?;
            return Err(broken("what was held is longer than the blob"));
        }
        Plan::Refused => {
            let body = whole(body, MIRROR_DEADLINE).await?;
            return Err(refused(&blob.place, &Answer { status: head.status, headers: head.headers, body }));
        }
    };
    receive(body, part, |held| progress.tell(held, size, &line(held, size))).await?;
    if part.held < size { Err(broken("the stream ended early")) } else { Ok(()) }
}

async fn receive(mut body: Incoming, part: &mut Part, mut held: impl FnMut(u64)) -> Result<(), Fault> {
    loop {
        let frame = timeout(STALL, body.frame()).await;
        match frame.map_err(|_| broken(&format!("nothing came for {} s", STALL.as_secs())))? {
            None => return Ok(()),
            Some(Err(error)) => return Err(broken(&error.to_string())),
            Some(Ok(frame)) => part.write(frame.data_ref().map(AsRef::as_ref).unwrap_or_default())?,
        }
        held(part.held);
    }
}

fn broken(why: &str) -> Fault {
    let fix = "run it again: it goes on where it stands; the sidecar's log says why";
    Fault::new(Exit::Unreachable, format!("the mirror's stream broke: {why}"), fix)
}

/// In tenths, so that there are few lines where there is no bar.
fn line(held: u64, size: u64) -> String {
    let tenth = (size / 10).max(1);
    let held = if held >= size { size } else { held / tenth * tenth };
    format!("{} of {}, {}", bytes(held), bytes(size), percent(held, size))
}

/// All of a small body.
///
/// # Errors
/// Where it is not small, or does not come.
pub async fn whole(body: Incoming, deadline: Duration) -> Result<Bytes, Fault> {
    let read = timeout(deadline, Limited::new(body, MAX_LEN).collect()).await;
    let read = read.map_err(|_| broken(&format!("no answer within {} s", deadline.as_secs())))?;
    Ok(read.map_err(|it| broken(&it.to_string()))?.to_bytes())
}

fn range(held: u64) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("bytes={held}-")).ok().filter(|_| held > 0);
    value.map(|it| (RANGE, it)).into_iter().collect()
}

/// What to do with an answer. Sizes are those of the whole blob, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It goes on where the file stands.
    Append { size: u64 },
    /// It begins at the beginning.
    Anew { size: u64 },
    /// The file has all of it.
    Whole,
    /// The file has more than all of it.
    Discard,
    /// It is none.
    Refused,
}

fn plan(held: u64, status: StatusCode, headers: &HeaderMap) -> Plan {
    let text = |name| headers.get(name)?.to_str().ok();
    let stated = text(CONTENT_RANGE).and_then(|it| it.parse::<ContentRange>().ok());
    let length = text(CONTENT_LENGTH).and_then(|it| it.parse().ok());
    match (status, stated, length) {
        (StatusCode::OK, _, Some(size)) => Plan::Anew { size },
        (StatusCode::PARTIAL_CONTENT, Some(ContentRange::Part { range, size }), _) if range.start == held => {
            Plan::Append { size: size.unwrap_or(range.end) }
        }
        (StatusCode::RANGE_NOT_SATISFIABLE, Some(ContentRange::Unsatisfied { size }), _) if size == held => {
            Plan::Whole
        }
        (StatusCode::RANGE_NOT_SATISFIABLE, ..) => Plan::Discard,
        _ => Plan::Refused,
    }
}

/// `FILE.part`, which one process writes at a time.
struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
    /// Bytes that are written and hashed.
    held: u64,
}

impl Part {
    /// Takes up what is there.
    fn open(output: &Path) -> Result<Self, Fault> {
        let mut path = OsString::from(output);
        path.push(".part");
        let path = PathBuf::from(path);
        let failed = |it: io::Error| on_disk(&path, &it);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("{}: another process writes it", path.display());
                return Err(Fault::usage(what, "wait for that one, or give another --output"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (mut hash, mut held) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = file.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                return Ok(Self { path, file, hash, held });
            }
            hash.update(buffer.get(..n).unwrap_or_default());
            held += n as u64;
        }
    }

    fn write(&mut self, content: &[u8]) -> Result<(), Fault> {
        self.file.write_all(content).map_err(|it| on_disk(&self.path, &it))?;
        self.hash.update(content);
        self.held += content.len() as u64;
        Ok(())
    }

    /// Begins anew.
    fn clear(&mut self) -> Result<(), Fault> {
        let cleared = self.file.set_len(0).and_then(|()| io::Seek::rewind(&mut self.file));
        cleared.map_err(|it| on_disk(&self.path, &it))?;
        (self.hash, self.held) = (Sha256::new(), 0);
        Ok(())
    }

    /// Gives the file its name, where it is what it should be.
    fn finish(self, digest: &Digest, output: &Path) -> Result<(), Fault> {
        let failed = |it: io::Error| on_disk(&self.path, &it);
        let found = Digest::from_sha256(self.hash.finalize().into());
        if found != *digest {
            std::fs::remove_file(&self.path).map_err(failed)?;
            let what = format!("the content has the digest {found}, and not {digest}; it was removed");
            return Err(Fault::new(
                Exit::Failure,
                what,
                "run it again; where that lasts, the registry's content is damaged",
            ));
        }
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.path, output).map_err(failed)
    }
}

fn on_disk(path: &Path, error: &io::Error) -> Fault {
    Fault::usage(
        format!("{}: {error}", path.display()),
        "give an --output that can be written, with room for it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(content: &[u8]) -> Digest {
        Digest::from_sha256(Sha256::digest(content).into())
    }

    #[track_caller]
    fn check(held: u64, status: u16, headers: &[(http::HeaderName, &str)], expected: Plan) {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        assert_eq!(plan(held, StatusCode::from_u16(status).unwrap(), &headers), expected);
    }

    #[test]
    fn an_answer_is_appended_only_where_the_file_stands() {
        check(0, 200, &[(CONTENT_LENGTH, "9")], Plan::Anew { size: 9 });
        check(4, 200, &[(CONTENT_LENGTH, "9")], Plan::Anew { size: 9 });
        check(4, 206, &[(CONTENT_RANGE, "bytes 4-8/9")], Plan::Append { size: 9 });
        check(4, 206, &[(CONTENT_RANGE, "bytes 3-8/9")], Plan::Refused);
        check(4, 206, &[], Plan::Refused);
        check(9, 416, &[(CONTENT_RANGE, "bytes */9")], Plan::Whole);
        check(10, 416, &[(CONTENT_RANGE, "bytes */9")], Plan::Discard);
        check(0, 404, &[(CONTENT_LENGTH, "9")], Plan::Refused);
    }

    #[test]
    fn what_is_asked_for_is_the_rest() {
        assert!(range(0).is_empty());
        assert_eq!(range(7)[RANGE], "bytes=7-");
    }

    #[test]
    fn progress_is_told_in_tenths() {
        let told = [0, 19, 20, 199, 200].map(|it| line(it, 200));
        assert_eq!(
            told,
            [
                "0 B of 200 B, 0 %",
                "0 B of 200 B, 0 %",
                "20 B of 200 B, 10 %",
                "180 B of 200 B, 90 %",
                "200 B of 200 B, 100 %"
            ]
        );
        assert_eq!(line(0, 0), "0 B of 0 B, ");
    }

    #[test]
    fn a_part_is_taken_up_and_gets_its_name_only_when_it_matches() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("blob");
        let part = dir.path().join("blob.part");
        Part::open(&output).unwrap().write(b"hello ").unwrap();
        let mut again = Part::open(&output).unwrap();
        assert_eq!(again.held, 6);
        assert!(Part::open(&output).err().unwrap().what.contains("another process"));
        again.write(b"world").unwrap();
        again.finish(&digest(b"hello world"), &output).unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"hello world");
        assert!(!part.exists());

        let mut wrong = Part::open(&output).unwrap();
        wrong.write(b"other").unwrap();
        let fault = wrong.finish(&digest(b"hello world"), &output).unwrap_err();
        assert_eq!(fault.exit, Exit::Failure);
        assert!(!part.exists() && std::fs::read(&output).unwrap() == b"hello world");

        let mut longer = Part::open(&output).unwrap();
        longer.write(b"more than there is").unwrap();
        longer.clear().unwrap();
        longer.write(b"x").unwrap();
        longer.finish(&digest(b"x"), &output).unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"x");
    }
}
