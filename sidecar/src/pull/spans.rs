//! What a trace shows of a download: the rungs of the ladder that it stood on, and some of its pieces.

use shoal_blobstore::Blob;
use shoal_model::{Node, TraceParent};
use shoal_ops::traces::{self, TARGET};
use shoal_swarm::PieceIndex;
use shoal_swarm::fetch::Rung;
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::download::End;

/// One in so many asks for pieces has a span, the first one included: a blob has thousands.
const ASKS_PER_SPAN: u64 = 32;

/// The spans of one download. They end with it.
pub(super) struct Spans {
    download: Span,
    rung: Span,
    n_asks: u64,
}

impl Spans {
    /// A download that somebody begins who stands there.
    pub(super) fn begin(blob: &Blob, asker: Option<TraceParent>) -> Self {
        let (key, size) = (blob.key(), blob.geometry().size());
        let download = || info_span!(target: TARGET, "download", blob = %key, size, error = Empty);
        let download = traces::from(asker, download);
        let rung = rung(&download, Rung::Swarm);
        Self { download, rung, n_asks: 0 }
    }

    /// Where the download stands.
    pub(super) fn place(&self) -> Option<TraceParent> {
        traces::place_of(&self.download)
    }

    /// The download has come to this rung.
    pub(super) fn came_to(&mut self, to: Rung) {
        self.rung = rung(&self.download, to);
    }

    /// That of the rung on which it stands.
    pub(super) fn rung(&self) -> Span {
        self.rung.clone()
    }

    /// That of an ask for a piece, where it has one.
    pub(super) fn ask(&mut self, node: &Node, piece: PieceIndex) -> Span {
        let has_one = self.n_asks.is_multiple_of(ASKS_PER_SPAN);
        self.n_asks += 1;
        let place = traces::place_of(&self.rung).filter(|_| has_one);
        traces::from(place, || {
            info_span!(
                target: TARGET, "piece", otel.kind = "client",
                node = %node.id, role = ?node.role, piece, error = Empty
            )
        })
    }

    /// The download has ended.
    pub(super) fn end(self, end: &End) {
        if let Err(why) = end {
            traces::failed(&self.download, why);
        }
    }
}

fn rung(download: &Span, rung: Rung) -> Span {
    let name = match rung {
        Rung::Swarm => "swarm",
        Rung::Gateway => "gateway",
        Rung::Stranded => "stranded",
        Rung::Direct => "direct",
        Rung::GivenUp => "given up",
    };
    let place = traces::place_of(download);
    traces::from(place, || info_span!(target: TARGET, "rung", otel.name = name))
}
