//! Real clients on the loopback against real listeners.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tower::service_fn;

use super::*;
use crate::metrics::Metrics;

type Reply = Response<BoxBody<Bytes, io::Error>>;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
const LIMITS: Limits = Limits::new(16);
const SHORT: Duration = Duration::from_millis(20);

/// A listener that serves a test's handler.
struct Served {
    addr: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
    metrics: Metrics,
}

async fn start<F>(limits: Limits, handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Served
where
    F: Future<Output = Reply> + Send + 'static,
{
    let listener = Listener::bind("test", ([127, 0, 0, 1], 0).into()).await.unwrap();
    let (addr, stop, metrics) = (listener.addr(), CancellationToken::new(), Metrics::new("test", "1"));
    let (serving, stopping) = (ServeMetrics::register(&metrics), stop.clone());
    let service = service_fn(move |req| {
        let reply = handler(req);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let ended = tokio::spawn(async move { serve(listener, service, limits, &serving, stopping).await });
    Served { addr, stop, ended, metrics }
}

async fn hello(_: Request<Incoming>) -> Reply {
    let body = Full::new(Bytes::from_static(b"hello"));
    Response::new(body.map_err(|it| match it {}).boxed())
}

type Bodies = mpsc::UnboundedReceiver<Sender<Bytes, io::Error>>;

/// A server whose replies have what the test sends as their bodies; each states ten bytes.
async fn start_streaming(limits: Limits) -> (Served, Bodies) {
    let (asked, bodies) = mpsc::unbounded_channel();
    let handler = move |_| {
        let (sender, body) = Channel::new(1);
        asked.send(sender).unwrap();
        let reply = Response::builder().header("content-length", 10);
        std::future::ready(reply.body(body.boxed()).unwrap())
    };
    (start(limits, handler).await, bodies)
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends bytes on a connection of its own and reads until the server closes it.
    async fn exchange(&self, bytes: &[u8]) -> io::Result<String> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await?;
        read_to_end(&mut stream).await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap();
    }
}

async fn read_to_end(stream: &mut TcpStream) -> io::Result<String> {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await?;
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

/// Reads until what was read ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        seen.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn both_versions_of_http_are_served_on_one_port() {
    let served = start(LIMITS, hello).await;
    let reply = served.exchange(LAST_REQUEST).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK") && reply.ends_with("hello"), "{reply}");

    let io = TokioIo::new(served.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let req = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
    let body = client.send_request(req).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    served.stop().await;
}

#[tokio::test]
async fn a_request_carries_the_clients_address() {
    let (seen, mut addrs) = mpsc::unbounded_channel();
    let served = start(LIMITS, move |req| {
        let ConnectInfo(addr) = *req.extensions().get::<ConnectInfo<SocketAddr>>().unwrap();
        seen.send(addr).unwrap();
        hello(req)
    })
    .await;
    let mut stream = served.connect().await;
    stream.write_all(LAST_REQUEST).await.unwrap();
    assert_eq!(addrs.recv().await, Some(stream.local_addr().unwrap()));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_so() {
    let served = start(LIMITS, hello).await;
    let head = format!("GET / HTTP/1.1\r\nhost: test\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let reply = served.exchange(head.as_bytes()).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 431 "), "{reply}");
    // Just below the limit is no trouble.
    let head = format!("GET / HTTP/1.1\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(60_000));
    let reply = served.exchange(head.as_bytes()).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

/// Also with more requests than hyper reads at once, where the system would send RST for the unread ones.
#[tokio::test]
async fn a_body_that_fails_ends_short_with_fin() {
    for requests in [REQUEST.to_vec(), REQUEST.repeat(1_400)] {
        let (served, mut bodies) = start_streaming(LIMITS).await;
        let mut stream = served.connect().await;
        stream.write_all(&requests).await.unwrap();
        let mut body = bodies.recv().await.unwrap();
        body.send_data(Bytes::from_static(b"hello")).await.unwrap();
        read_until(&mut stream, "hello").await;
        body.abort(io::Error::other("the source is gone"));
        assert_eq!(read_to_end(&mut stream).await.unwrap(), "");
    }
}

/// A body of these ranges of a file, with a byte of its own for an empty one.
struct Quoted {
    sendfile: Sendfile,
    file: Arc<std::fs::File>,
    rest: std::vec::IntoIter<std::ops::Range<u64>>,
}

impl Body for Quoted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let data = self.rest.next().map(|range| match range.is_empty() {
            true => Bytes::from_static(b"-"),
            false => self.sendfile.promise(self.file.clone(), range, || true),
        });
        Poll::Ready(data.map(|it| Ok(Frame::data(it))))
    }
}

/// More of them than a socket takes at once.
#[tokio::test]
async fn promised_bytes_of_a_file_take_their_place_in_the_body() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..8_000_000_u32).map(|it| (it / 7) as u8).collect();
    std::fs::write(dir.path().join("it"), &content).unwrap();
    let file = Arc::new(std::fs::File::open(dir.path().join("it")).unwrap());
    let served = start(LIMITS, move |req| {
        let sendfile = Sendfile::of(&req).unwrap();
        let rest = vec![0..0, 9..3_000_000, 3_000_000..8_000_000].into_iter();
        let body = Quoted { sendfile, file: file.clone(), rest };
        let reply = Response::builder().header("content-length", 1 + 8_000_000 - 9);
        std::future::ready(reply.body(body.boxed()).unwrap())
    })
    .await;
    let mut stream = served.connect().await;
    // The second request shows that the connection is in order after the first.
    stream.write_all(&[REQUEST, LAST_REQUEST].concat()).await.unwrap();
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    let body = [b"-", &content[9..]].concat();
    let (first, second) = seen.split_at(seen.windows(8).rposition(|it| it == b"HTTP/1.1").unwrap());
    assert!(first.ends_with(&body) && second.ends_with(&body), "other bytes came");
}

#[tokio::test]
async fn http_2_takes_no_promises() {
    let served = start(LIMITS, |req| {
        assert!(Sendfile::of(&req).is_none());
        hello(req)
    })
    .await;
    let io = TokioIo::new(served.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let req = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
    assert!(client.send_request(req).await.is_ok());
}

#[tokio::test]
async fn a_stop_refuses_new_clients_and_finishes_requests() {
    let (served, mut bodies) = start_streaming(LIMITS).await;
    let mut stream = served.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    let mut body = bodies.recv().await.unwrap();
    served.stop.cancel();
    while TcpStream::connect(served.addr).await.is_ok() {}
    body.send_data(Bytes::from_static(b"helloworld")).await.unwrap();
    drop(body);
    assert!(read_to_end(&mut stream).await.unwrap().ends_with("helloworld"));
    served.ended.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_brings_no_request_is_closed() {
    let limits = Limits { first_request: SHORT, ..LIMITS };
    let served = start(limits, hello).await;
    // Half a head or a mere preface must not keep it open either, whatever the server says for goodbye.
    for sent in [&b""[..], b"GET / HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let reply = served.exchange(sent).await.unwrap();
        assert!(!reply.contains("200 OK"), "{reply}");
    }
}

#[tokio::test]
async fn a_connection_without_further_requests_is_closed() {
    let limits = Limits { idle: SHORT, ..LIMITS };
    let served = start(limits, hello).await;
    let reply = served.exchange(REQUEST).await.unwrap();
    assert!(reply.ends_with("hello"), "{reply}");
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_cut() {
    let limits = Limits { stall: SHORT, ..LIMITS };
    let (asked, mut bodies) = mpsc::unbounded_channel();
    let served = start(limits, move |_| {
        let (sender, body) = Channel::new(1);
        asked.send(sender).unwrap();
        std::future::ready(Response::new(body.boxed()))
    })
    .await;
    let mut stream = served.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    let mut body: Sender<Bytes, io::Error> = bodies.recv().await.unwrap();
    // The body is dropped when the connection is cut; until then it takes what fits the buffers.
    while body.send_data(Bytes::from(vec![0; 64 << 10])).await.is_ok() {}
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_while_the_others_are_at_work() {
    let (served, mut bodies) = start_streaming(Limits::new(1)).await;
    let mut first = served.connect().await;
    first.write_all(LAST_REQUEST).await.unwrap();
    let mut body = bodies.recv().await.unwrap();
    let mut second = served.connect().await;
    second.write_all(LAST_REQUEST).await.unwrap();
    assert!(timeout(3 * LOOK_EVERY, bodies.recv()).await.is_err(), "the second has no place yet");
    assert!(served.metrics.encode().contains("shoal_connections_full_total{listener=\"test\"} 1"));
    body.send_data(Bytes::from_static(b"helloworld")).await.unwrap();
    drop(body);
    assert!(read_to_end(&mut first).await.unwrap().ends_with("helloworld"));
    bodies.recv().await.unwrap().send_data(Bytes::from_static(b"helloworld")).await.unwrap();
    assert!(read_to_end(&mut second).await.unwrap().ends_with("helloworld"));
}

#[tokio::test]
async fn at_the_cap_the_connection_that_has_rested_the_longest_gives_way() {
    let (served, mut bodies) = start_streaming(Limits::new(3)).await;
    let mut silent = served.connect().await;
    let mut half = served.connect().await;
    half.write_all(b"GET / HT").await.unwrap();
    let mut busy = served.connect().await;
    busy.write_all(LAST_REQUEST).await.unwrap();
    let mut body = bodies.recv().await.unwrap();
    for resting in [&mut silent, &mut half] {
        let mut new = served.connect().await;
        new.write_all(LAST_REQUEST).await.unwrap();
        assert_eq!(read_to_end(resting).await.unwrap(), "");
        bodies.recv().await.unwrap().send_data(Bytes::from_static(b"helloworld")).await.unwrap();
        assert!(read_to_end(&mut new).await.unwrap().ends_with("helloworld"));
        served.connect().await;
    }
    body.send_data(Bytes::from_static(b"helloworld")).await.unwrap();
    drop(body);
    assert!(read_to_end(&mut busy).await.unwrap().ends_with("helloworld"));
}

#[tokio::test]
async fn a_client_that_takes_a_byte_now_and_then_is_cut() {
    let limits = Limits { stall: 10 * SHORT, ..LIMITS };
    let (asked, mut bodies) = mpsc::unbounded_channel();
    let served = start(limits, move |_| {
        let (sender, body) = Channel::new(1);
        asked.send(sender).unwrap();
        std::future::ready(Response::new(body.boxed()))
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut stream = socket.connect(served.addr).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut body: Sender<Bytes, io::Error> = bodies.recv().await.unwrap();
    let sending = async { while body.send_data(Bytes::from(vec![0; 64 << 10])).await.is_ok() {} };
    let reading = async {
        let mut ticks = interval(SHORT);
        loop {
            ticks.tick().await;
            stream.read_exact(&mut [0; 512]).await.unwrap();
        }
    };
    tokio::select! {
        () = sending => {}
        () = reading => {}
    }
}

#[tokio::test]
async fn dropping_the_server_cuts_its_connections() {
    let (served, mut bodies) = start_streaming(LIMITS).await;
    let mut stream = served.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    let _body = bodies.recv().await.unwrap();
    served.ended.abort();
    read_to_end(&mut stream).await.unwrap();
}

#[test]
fn failures_to_accept_are_waited_out_longer_and_longer() {
    let waits = [1, 2, 3, 8, 9, u32::MAX].map(|n| back_off(n).as_millis());
    assert_eq!(waits, [5, 10, 20, 640, 1_000, 1_000]);
}

#[tokio::test]
async fn a_client_that_grants_no_window_is_cut() {
    // Several times what a client grants at first.
    let body = |_| {
        let parts = (0..256).map(|_| Ok(Frame::data(Bytes::from_static(&[0; 64 << 10]))));
        std::future::ready(Response::new(BodyExt::boxed(StreamBody::new(stream::iter(parts)))))
    };
    let served = start(Limits { stall: SHORT, ..LIMITS }, body).await;
    let io = TokioIo::new(served.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let req = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
    // Not read, so that no window is granted beyond the first.
    let unread = client.send_request(req).await.unwrap();
    let _ended = timeout(Duration::from_secs(10), connection).await.expect("the connection is cut").unwrap();
    drop(unread);
    served.stop().await;
}
