//! What a node still has to tell its scheduler.
//!
//! The queue is bounded and never makes a pull wait. When it overflows, it is emptied and the node
//! announces its whole state instead: messages only say how the state changed, so the state itself makes
//! up for any number of them. The same happens on every new stream, whose scheduler knows nothing yet.
//!
//! The state is taken outside of the queue's lock, because its owner has locks of its own. A message that
//! was queued meanwhile may already be part of that state and is sent after it all the same: each says
//! what is, not how much to add, so hearing it twice changes nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, Stream};
use shoal_proto::{Hello, NodeMessage};
use tokio::sync::Notify;

/// Tells everything that a scheduler has to know of a node.
pub trait Announce: Send + Sync + 'static {
    /// All that the node holds and wants at this moment, as messages that a scheduler which knows nothing
    /// of the node can start from; progress in them says `dropped`, so that nothing older survives.
    fn snapshot(&self) -> Vec<NodeMessage>;
}

/// The most messages that wait.
const CAPACITY: usize = 1024;

/// The queue, shared by those who push and the stream that sends.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<NodeMessage>,
    /// The whole state must be announced before what is queued.
    stale: bool,
    leaving: bool,
    /// Which stream may take messages: one that is being torn down must not swallow any.
    stream: u64,
}

#[derive(Debug, PartialEq)]
enum Next {
    Announce,
    Send(NodeMessage),
    End,
}

impl Outbox {
    /// Queues a message.
    pub(crate) fn push(&self, message: NodeMessage) {
        let mut state = self.state();
        // The state that will be announced is taken later than now and has this in it.
        if state.stale || state.leaving {
            return;
        }
        if state.queue.len() < CAPACITY {
            state.queue.push_back(message);
        } else {
            state.queue.clear();
            state.stale = true;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Says goodbye, and nothing after it.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        state.queue = [NodeMessage::Leaving].into();
        (state.stale, state.leaving) = (false, true);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Starts a stream: `hello`, the whole state, then what is pushed. It ends when the next one starts.
    pub(crate) fn stream(
        self: &Arc<Self>,
        hello: Hello,
        announce: Arc<dyn Announce>,
    ) -> impl Stream<Item = NodeMessage> + Send + 'static {
        let outgoing = Outgoing {
            stream: self.restart(),
            outbox: self.clone(),
            announce,
            first: [NodeMessage::Hello(hello)].into(),
        };
        stream::unfold(outgoing, Outgoing::next)
    }

    fn restart(&self) -> u64 {
        let mut state = self.state();
        state.queue.clear();
        state.stale = true;
        state.stream += 1;
        let stream = state.stream;
        drop(state);
        self.changed.notify_waiters();
        stream
    }

    async fn next(&self, stream: u64) -> Next {
        loop {
            // Taken before the look at the queue, so that no change falls in between.
            let changed = self.changed.notified();
            if let Some(next) = self.take(stream) {
                return next;
            }
            changed.await;
        }
    }

    fn take(&self, stream: u64) -> Option<Next> {
        let mut state = self.state();
        if state.stream != stream {
            return Some(Next::End);
        }
        if std::mem::take(&mut state.stale) {
            return Some(Next::Announce);
        }
        match state.queue.pop_front() {
            Some(message) => Some(Next::Send(message)),
            None => state.leaving.then_some(Next::End),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's end of the outbox.
struct Outgoing {
    stream: u64,
    outbox: Arc<Outbox>,
    announce: Arc<dyn Announce>,
    /// Goes before what is queued: the greeting, later the rest of an announcement.
    first: VecDeque<NodeMessage>,
}

impl Outgoing {
    async fn next(mut self) -> Option<(NodeMessage, Self)> {
        loop {
            if let Some(message) = self.first.pop_front() {
                return Some((message, self));
            }
            match self.outbox.next(self.stream).await {
                Next::Announce => self.first = self.announce.snapshot().into(),
                Next::Send(message) => return Some((message, self)),
                Next::End => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use futures_util::{FutureExt as _, StreamExt as _};
    use std::pin::Pin;

    struct Holdings;

    impl Announce for Holdings {
        fn snapshot(&self) -> Vec<NodeMessage> {
            vec![NodeMessage::Progress(Vec::new())]
        }
    }

    fn unwant(byte: u8) -> NodeMessage {
        NodeMessage::Unwant(testing::key(byte))
    }

    type Messages = Pin<Box<dyn Stream<Item = NodeMessage>>>;

    fn open(outbox: &Arc<Outbox>) -> Messages {
        let hello = Hello { node: testing::node("127.0.0.1:1"), protocol: shoal_proto::PROTOCOL };
        Box::pin(outbox.stream(hello, Arc::new(Holdings)))
    }

    /// What a stream sends without waiting, by name.
    #[track_caller]
    fn check(stream: &mut Messages, expected: &[&str]) {
        let mut sent = Vec::new();
        loop {
            sent.push(match stream.next().now_or_never() {
                None => break,
                Some(None) => "end".to_owned(),
                Some(Some(NodeMessage::Hello(_))) => "hello".to_owned(),
                Some(Some(NodeMessage::Progress(_))) => "state".to_owned(),
                Some(Some(NodeMessage::Unwant(key))) => format!("unwant {}", key.digest.as_bytes()[0]),
                Some(Some(other)) => format!("{other:?}"),
            });
            if sent.last().is_some_and(|it| it == "end") {
                break;
            }
        }
        assert_eq!(sent, expected);
    }

    #[test]
    fn the_whole_state_goes_before_what_is_pushed() {
        let outbox = Arc::new(Outbox::default());
        let mut stream = open(&outbox);
        check(&mut stream, &["hello", "state"]);
        outbox.push(unwant(1));
        outbox.push(unwant(2));
        check(&mut stream, &["unwant 1", "unwant 2"]);
        check(&mut stream, &[]);
    }

    #[test]
    fn an_overflow_is_made_up_for_by_the_whole_state() {
        let outbox = Arc::new(Outbox::default());
        let mut stream = open(&outbox);
        check(&mut stream, &["hello", "state"]);
        (0..=CAPACITY).for_each(|_| outbox.push(unwant(1)));
        outbox.push(unwant(2));
        check(&mut stream, &["state"]);
        outbox.push(unwant(3));
        check(&mut stream, &["unwant 3"]);
    }

    #[test]
    fn a_new_stream_ends_the_old_one_and_starts_over() {
        let outbox = Arc::new(Outbox::default());
        let mut old = open(&outbox);
        check(&mut old, &["hello", "state"]);
        outbox.push(unwant(1));
        let mut new = open(&outbox);
        check(&mut old, &["end"]);
        check(&mut new, &["hello", "state"]);
    }

    #[test]
    fn leaving_is_the_last_word_and_voids_the_rest() {
        let outbox = Arc::new(Outbox::default());
        let mut stream = open(&outbox);
        check(&mut stream, &["hello", "state"]);
        outbox.push(unwant(1));
        outbox.leave();
        outbox.push(unwant(2));
        check(&mut stream, &["Leaving", "end"]);
    }
}
