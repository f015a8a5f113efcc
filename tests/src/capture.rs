//! Everything that machines of the lab send and receive, loopback included, kept to be searched.
//!
//! A packet socket on each machine sees all of its interfaces. Nobody reads it while the test runs: the frames
//! wait in the kernel, in a buffer so large that none is lost, and that is checked at the end. TCP streams are
//! put together, so that what was cut between two packets is found too; a packet that is seen twice counts
//! once.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::{Domain, Protocol, Socket, Type};

use crate::host::Host;
use crate::secrets::{Found, Secrets};

/// `ETH_P_ALL`: packets of every protocol.
const EVERY_PROTOCOL: u16 = 3;
/// Bytes of the kernel's buffer on each machine; what is captured has to stay well below.
const BUFFER: usize = 128 << 20;
/// What the kernel's own bookkeeping takes for a frame, at the most.
const OVERHEAD: usize = 1024;
const LONGEST_FRAME: usize = 256 << 10;

/// A capture under way.
#[derive(Debug)]
pub struct Capture(Vec<(Host, Socket)>);

/// What was captured.
#[derive(Debug)]
pub struct Captured {
    /// By machine, as they came.
    frames: Vec<(String, Vec<u8>)>,
}

impl Capture {
    /// Captures from now on what these machines send and receive.
    pub fn start<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Result<Self> {
        let sockets = hosts.into_iter().map(|host| Ok((host.clone(), host.within(packet_socket)?)));
        Ok(Self(sockets.collect::<Result<_>>()?))
    }

    /// Ends the capture. Fails if so much came that some may have been lost.
    pub fn finish(self) -> Result<Captured> {
        let mut frames = Vec::new();
        for (host, socket) in self.0 {
            let of_host = queued(&socket).with_context(|| format!("{}: capture", host.name()))?;
            let held: usize = of_host.iter().map(|it| it.len() * 2 + OVERHEAD).sum();
            ensure!(held < BUFFER, "{}: {held} bytes captured, {BUFFER} kept at most", host.name());
            frames.extend(of_host.into_iter().map(|it| (host.name().to_owned(), it)));
        }
        Ok(Captured { frames })
    }
}

impl Captured {
    /// Where secrets are in what was captured.
    pub fn find(&self, secrets: &Secrets) -> Vec<Found> {
        let frames = self.frames.iter().map(|(host, frame)| (format!("a packet at {host}"), frame.clone()));
        let streams = self.streams().into_iter().map(|((host, from, to), stream)| {
            (format!("a connection from {from} to {to}, seen at {host}"), stream.assembled())
        });
        frames.chain(streams).flat_map(|(place, bytes)| secrets.find_in(&place, &bytes)).collect()
    }

    /// The TCP streams, by machine, sender and receiver. A port that is used again goes on as the same stream.
    fn streams(&self) -> BTreeMap<(&str, String, String), Stream> {
        let mut streams: BTreeMap<_, Stream> = BTreeMap::new();
        for (host, frame) in &self.frames {
            let Ok(packet) = SlicedPacket::from_ethernet(frame) else { continue };
            let (Some(net), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport) else {
                continue;
            };
            let [from, to] = ends(net, tcp);
            streams.entry((host.as_str(), from, to)).or_default().add(tcp);
        }
        streams
    }
}

fn ends(net: &NetSlice<'_>, tcp: &TcpSlice<'_>) -> [String; 2] {
    let [from, to] = match net {
        NetSlice::Ipv4(it) => {
            [it.header().source_addr(), it.header().destination_addr()].map(|it| it.to_string())
        }
        NetSlice::Ipv6(it) => {
            [it.header().source_addr(), it.header().destination_addr()].map(|it| it.to_string())
        }
        NetSlice::Arp(_) => Default::default(),
    };
    [format!("{from}:{}", tcp.source_port()), format!("{to}:{}", tcp.destination_port())]
}

/// One direction of a connection: what was sent, by sequence number.
#[derive(Debug, Default)]
struct Stream {
    first: Option<u32>,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl Stream {
    fn add(&mut self, tcp: &TcpSlice<'_>) {
        let number = tcp.sequence_number();
        let first = *self.first.get_or_insert(number);
        let part = self.parts.entry(number.wrapping_sub(first)).or_default();
        if part.len() < tcp.payload().len() {
            *part = tcp.payload().to_vec();
        }
    }

    fn assembled(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut end = 0;
        for (at, part) in &self.parts {
            let at = u64::from(*at);
            let seen = usize::try_from(end - at.min(end)).unwrap_or(usize::MAX);
            bytes.extend_from_slice(part.get(seen..).unwrap_or_default());
            end = end.max(at + part.len() as u64);
        }
        bytes
    }
}

fn packet_socket() -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    Ok(socket)
}

/// The frames that wait in a socket.
fn queued(socket: &Socket) -> io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; LONGEST_FRAME];
    loop {
        match (&*socket).read(&mut buffer) {
            Ok(len) => frames.push(buffer[..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(frames),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn frame(number: u32, payload: &[u8]) -> (String, Vec<u8>) {
        let packet = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut bytes = Vec::new();
        packet.tcp(1000, 80, number, 1024).write(&mut bytes, payload).expect("written to memory");
        ("node1".into(), bytes)
    }

    #[track_caller]
    fn check(sent: &[(u32, &str)], expected: &str) {
        let frames = sent.iter().map(|(number, payload)| frame(*number, payload.as_bytes())).collect();
        let captured = Captured { frames };
        let streams: Vec<_> = captured.streams().into_values().map(|it| it.assembled()).collect();
        assert_eq!(streams, [expected.as_bytes()]);
    }

    #[test]
    fn a_stream_is_put_together_from_its_packets() {
        check(&[(1, "abc"), (4, "def")], "abcdef");
        check(&[(1, "abc"), (7, "ghi"), (4, "def")], "abcdefghi");
        check(&[(1, "abc"), (1, "abc"), (1, "ab"), (4, "def")], "abcdef");
        check(&[(1, "abc"), (3, "cde")], "abcde");
        check(&[(u32::MAX, "ab"), (1, "cd")], "abcd");
    }

    #[test]
    fn what_is_cut_between_two_packets_is_found() {
        let captured = Captured { frames: vec![frame(1, b"my s3c"), frame(7, b"ret!")] };
        let found = captured.find(&Secrets::default().and("password", "s3cret"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(captured.find(&Secrets::default().and("other", "s3crets")).is_empty());
    }
}
