//! The local services: DHCP, DNS and metadata, on sockets bound to the device toward the switch; and the translation of
//! what ICMP errors quote, and what a router tells those whose packets have come to the end of their time to live, which come by the
//! same device ([`quote`], [`expired`]).
//!
//! Assumes that the device has its addresses, and that the source of a packet on it is an address by which the port is known
//! ([`service::source`]), written by the switch. Promises: who is answered is the address that asked, whichever of the port's; everything is answered from the document at hand, so it works with the control
//! plane off; a guest can fill only its own share (connections, queries under way and per second are bounded per port
//! and in all); whatever a request does, the others go on.
//!
//! The sockets end with the [`Services`] value. When the device is made anew (a restarted switch does that), the old
//! sockets are bound to nothing: drop them and start again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gon_driver::frames::Frames;
use gon_net::service;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::view::View;
use super::{dhcp, dns, expired, metadata, quote};

/// Connections (metadata, DNS over TCP) and DNS queries under way: per port, and on the node.
const PER_PORT: usize = 32;
const IN_ALL: usize = 1024;
/// DNS queries of one port per second; as many at once (EC2's limit is 1024 packets per second).
const QUERIES_PER_SECOND: f64 = 1024.0;
/// ICMP errors of or about one port per second; as many at once. (Linux itself sends 1000 per second in all.)
const ERRORS_PER_SECOND: f64 = 256.0;
/// How long a client may take to say what it wants, and how long a connection may last.
const HEADER_TIME: Duration = Duration::from_secs(10);
const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// How long one resolver is waited for.
const RESOLVER_TIME: Duration = Duration::from_secs(2);
/// The largest DNS message over TCP that is passed on.
const DNS_TCP_LIMIT: usize = 65_535;

/// What the services answer from.
#[derive(Debug, Clone)]
pub struct Knowledge {
    /// The document.
    pub view: watch::Receiver<Arc<View>>,
    /// Makes and judges metadata tokens.
    pub tokens: Arc<metadata::Tokens>,
    /// Where the host's resolvers are listed.
    pub resolv_conf: PathBuf,
}

/// Running services.
#[derive(Debug)]
pub struct Services {
    tasks: JoinSet<()>,
}

impl Services {
    /// Binds every socket and serves until dropped, on the device of this name and index. A DNS address that somebody else has
    /// taken on this host is logged and left out; metadata and DHCP are not optional.
    pub fn start(device: &str, index: u32, knowledge: &Knowledge) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        let shares = Arc::new(Shares::default());
        let shared = Shared { knowledge: knowledge.clone(), shares };

        let listener = listen(device, service::METADATA, service::METADATA_LISTEN)?;
        // Answers must not leave the instance: a router or proxy in the guest drops them.
        listener.set_ttl(1)?;
        tasks.spawn(serve_tcp(listener, shared.clone(), |shared, stream, from| async move {
            serve_metadata(shared, stream, from).await;
        }));

        let unicast = Arc::new(bind(device, service::DHCP, service::DHCP_LISTEN)?);
        let broadcast = Arc::new(bind(device, service::DHCP_BROADCAST, service::DHCP_LISTEN)?);
        tasks.spawn(serve_dhcp(unicast, broadcast, shared.clone()));

        let errors = Frames::open(index, service::QUOTE_MAC)?;
        tasks.spawn(translate_errors(errors, shared.clone()));
        let spent = Frames::open(index, service::EXPIRED_MAC)?;
        tasks.spawn(tell_senders(spent, shared.clone()));

        for address in service::DNS {
            let both = bind(device, address, service::DNS_LISTEN)
                .and_then(|udp| Ok((udp, listen(device, address, service::DNS_LISTEN)?)));
            match both {
                Ok((udp, tcp)) => {
                    tasks.spawn(serve_dns_udp(Arc::new(udp), shared.clone()));
                    tasks.spawn(serve_tcp(tcp, shared.clone(), |shared, stream, from| async move {
                        let _ =
                            tokio::time::timeout(CONNECTION_TIME, serve_dns_tcp(&shared, stream, from)).await;
                    }));
                }
                Err(error) => tracing::error!(%address, %error, "DNS is not served on this address"),
            }
        }
        Ok(Self { tasks })
    }

    /// Whether every service still serves; one that ended (none should) is served again by starting anew.
    pub fn is_whole(&mut self) -> bool {
        self.tasks.try_join_next().is_none()
    }
}

#[derive(Debug, Clone)]
struct Shared {
    knowledge: Knowledge,
    shares: Arc<Shares>,
}

impl Shared {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.knowledge.view.borrow())
    }
}

fn bind(device: &str, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((address, port)).map_err(|error| taken(address, port, error))?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.bind_device(Some(device.as_bytes()))?;
    Ok(socket)
}

fn listen(device: &str, address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(SocketAddr::from((address, port))).map_err(|error| taken(address, port, error))?;
    socket.listen(256)
}

fn taken(address: Ipv4Addr, port: u16, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{address}:{port} (is port {port} of every address taken?): {error}"),
    )
}

/// Who has how much under way, and how much more each may ask.
#[derive(Debug, Default)]
struct Shares {
    taken: Mutex<Taken>,
}
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    ports: HashMap<Ipv4Addr, Share>,
}
#[derive(Debug)]
struct Share {
    under_way: usize,
    queries: Bucket,
    errors: Bucket,
}
/// How much of something may be had now, if `rate` may be per second.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    left: f64,
    refilled: Instant,
}
impl Bucket {
    fn full(rate: f64) -> Self {
        Self { rate, left: rate, refilled: Instant::now() }
    }
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let grown = now.duration_since(self.refilled).as_secs_f64() * self.rate;
        self.refilled = now;
        self.left = (self.left + grown).min(self.rate);
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// One thing under way.
#[derive(Debug)]
struct Slot {
    shares: Arc<Shares>,
    of: Ipv4Addr,
}

impl Shares {
    /// Room for one more thing of a port; `None` if it, or the node, has enough under way.
    fn take(self: &Arc<Self>, of: Ipv4Addr) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all = taken.all;
        let share = taken.share(of);
        if share.under_way >= PER_PORT || all >= IN_ALL {
            return None;
        }
        share.under_way += 1;
        taken.all += 1;
        Some(Slot { shares: Arc::clone(self), of })
    }
    /// Whether a port may ask one more query now.
    fn may_ask(&self, of: Ipv4Addr) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.share(of).queries.take()
    }
    /// Whether one more ICMP error of or about a port is translated now.
    fn may_err(&self, of: Ipv4Addr) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.share(of).errors.take()
    }
}
impl Taken {
    /// There are at most as many as link-local addresses of ports: 16 000.
    fn share(&mut self, of: Ipv4Addr) -> &mut Share {
        self.ports.entry(of).or_insert_with(|| Share {
            under_way: 0,
            queries: Bucket::full(QUERIES_PER_SECOND),
            errors: Bucket::full(ERRORS_PER_SECOND),
        })
    }
}
impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(share) = taken.ports.get_mut(&self.of) {
            share.under_way = share.under_way.saturating_sub(1);
        }
    }
}

/// The port that asks, by the link-local address of its first address, whichever it asks from.
fn port_of(from: SocketAddr) -> Option<Ipv4Addr> {
    match from {
        SocketAddr::V4(from) => service::port_no(*from.ip()).map(service::link_local),
        SocketAddr::V6(_) => None,
    }
}

/// Accepts connections of known ports, each in a task of its own.
async fn serve_tcp<F, T>(listener: TcpListener, shared: Shared, serve: F)
where
    F: Fn(Shared, TcpStream, Ipv4Addr) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        // Finished ones are forgotten; what panicked in one ended there.
        while connections.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(pair) => pair,
            Err(error) => {
                tracing::debug!(%error, "accepting a guest's connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(from) = port_of(from) else { continue };
        let Some(slot) = shared.shares.take(from) else { continue };
        let _ = stream.set_nodelay(true);
        let work = serve(shared.clone(), stream, from);
        connections.spawn(async move {
            work.await;
            drop(slot);
        });
    }
}

async fn serve_metadata(shared: Shared, stream: TcpStream, from: Ipv4Addr) {
    let _ = stream.set_ttl(1);
    let answer = |request: hyper::Request<Incoming>| {
        let response = respond(&shared, from, &request);
        async move { Ok::<_, Infallible>(response) }
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
    // Neither a client that went away nor one that was too slow is worth a word.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

fn respond(
    shared: &Shared,
    from: Ipv4Addr,
    request: &hyper::Request<Incoming>,
) -> hyper::Response<Full<Bytes>> {
    let view = shared.view();
    let header = |name: &str| request.headers().get(name);
    let text = |name: &str| header(name).map(|value| value.to_str().unwrap_or(""));
    let answer = match view.port_at(from) {
        Some(of) => metadata::respond(
            of,
            &shared.knowledge.tokens,
            metadata::Request {
                method: request.method().as_str(),
                path: request.uri().path(),
                token: text("x-aws-ec2-metadata-token"),
                ttl: text("x-aws-ec2-metadata-token-ttl-seconds"),
                forwarded: header("x-forwarded-for").is_some(),
            },
            boot_seconds(),
        ),
        // A port that is not in the document any more.
        None => metadata::Response { status: 404, content_type: "text/plain", body: vec![], header: None },
    };
    let mut response = hyper::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(hyper::header::SERVER, HeaderValue::from_static("EC2ws"));
    if let Some((name, value)) = answer.header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        headers.insert(HeaderName::from_static(name), value);
    }
    response
}

/// Seconds since the machine's boot, suspend included (`/proc/uptime` counts so).
pub(super) fn boot_seconds() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(u64::MAX)
}

async fn serve_dhcp(unicast: Arc<UdpSocket>, broadcast: Arc<UdpSocket>, shared: Shared) {
    let mut buffer = vec![0u8; 2048];
    loop {
        let (length, from) = match unicast.recv_from(&mut buffer).await {
            Ok(pair) => pair,
            Err(error) => {
                tracing::debug!(%error, "receiving a DHCP request");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(port) = port_of(from) else { continue };
        let view = shared.view();
        let Some(of) = view.port_at(port) else { continue };
        let request = &buffer[..length];
        // The library decodes what a guest wrote: a panic in it must be that one request's.
        let answer = std::panic::catch_unwind(|| dhcp::answer(of.port, of.subnet, request));
        let Ok(Some(reply)) = answer else { continue };
        let socket = if reply.broadcast { &broadcast } else { &unicast };
        let to = SocketAddr::new(from.ip(), service::DHCP_CLIENT_UDP);
        if let Err(error) = socket.send_to(&reply.bytes, to).await {
            tracing::debug!(port = %of.port.id, %error, "a DHCP answer was not sent");
        }
    }
}

/// Gives ICMP errors back to the switch with their quotes translated. What is not one is forgotten.
async fn translate_errors(frames: Frames, shared: Shared) {
    let mut buffer = vec![0u8; 2048];
    loop {
        let length = match frames.receive(&mut buffer).await {
            Ok(length) => length,
            Err(error) => {
                tracing::debug!(%error, "receiving an ICMP error");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let frame = &mut buffer[..length];
        let view = shared.view();
        let Some(of) = quote::public_of(frame).and_then(|public| view.port_outside(public)) else { continue };
        let private = |public| view.port_outside(public).map(|of| of.port.private_ip);
        if shared.shares.may_err(service::link_local(of.port.port_no)) && quote::translate(frame, private) {
            // Lost like any packet if the device has no room.
            let _ = frames.send(frame);
        }
    }
}

/// Tells those whose packets have come to the end of their time to live.
async fn tell_senders(frames: Frames, shared: Shared) {
    let mut buffer = vec![0u8; 2048];
    loop {
        let length = match frames.receive(&mut buffer).await {
            Ok(length) => length,
            Err(error) => {
                tracing::debug!(%error, "receiving what has come to the end of its time to live");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let frame = &buffer[..length];
        let Some(port) = expired::sender_of(frame).and_then(service::port_no) else { continue };
        if shared.shares.may_err(service::link_local(port))
            && let Some(told) = expired::tell(frame)
        {
            // Lost like any packet if the device has no room.
            let _ = frames.send(&told);
        }
    }
}

async fn serve_dns_udp(socket: Arc<UdpSocket>, shared: Shared) {
    let mut buffer = vec![0u8; 2048];
    let mut queries = JoinSet::new();
    loop {
        while queries.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(pair) => pair,
            Err(error) => {
                tracing::debug!(%error, "receiving a DNS query");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(from) = port_of(client) else { continue };
        if !shared.shares.may_ask(from) {
            continue;
        }
        let query = &buffer[..length];
        match judge(&shared, from, query) {
            dns::Verdict::Drop => {}
            dns::Verdict::Answer(answer) => drop(socket.send_to(&answer, client).await),
            dns::Verdict::Forward => {
                let Some(slot) = shared.shares.take(from) else { continue };
                let (socket, query) = (Arc::clone(&socket), query.to_vec());
                let resolv_conf = shared.knowledge.resolv_conf.clone();
                queries.spawn(async move {
                    let answer = match forward_udp(&resolv_conf, &query).await {
                        Some(answer) => Some(dns::fit_udp(answer)),
                        None => dns::failure(&query),
                    };
                    if let Some(answer) = answer {
                        let _ = socket.send_to(&answer, client).await;
                    }
                    drop(slot);
                });
            }
        }
    }
}

fn judge(shared: &Shared, from: Ipv4Addr, query: &[u8]) -> dns::Verdict {
    let view = shared.view();
    // As with DHCP: whatever goes wrong with what a guest wrote goes wrong for it alone.
    let judged = std::panic::catch_unwind(|| view.port_at(from).map(|of| dns::judge(of, &view, query)));
    judged.ok().flatten().unwrap_or(dns::Verdict::Drop)
}

async fn resolvers(resolv_conf: &Path) -> Vec<Ipv4Addr> {
    let text = tokio::fs::read_to_string(resolv_conf).await.unwrap_or_default();
    dns::resolvers(&text)
}

fn fresh_id() -> Option<u16> {
    let mut bytes = [0; 2];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(u16::from_be_bytes(bytes))
}

/// Asks the host's resolvers in turn. Each question has an id and a source port of its own, the socket hears only
/// the resolver, and what is not the answer to the question is passed over: nobody else can answer.
async fn forward_udp(resolv_conf: &Path, query: &[u8]) -> Option<Vec<u8>> {
    for resolver in resolvers(resolv_conf).await {
        let asked = dns::with_id(query, fresh_id()?);
        let exchange = async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            socket.connect((resolver, service::DNS_TP)).await?;
            socket.send(&asked).await?;
            let mut buffer = vec![0u8; 4096];
            loop {
                let length = socket.recv(&mut buffer).await?;
                if dns::answers(&asked, &buffer[..length]) {
                    buffer.truncate(length);
                    return io::Result::Ok(buffer);
                }
            }
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(RESOLVER_TIME, exchange).await {
            return Some(dns::with_id(&answer, id_of(query)));
        }
    }
    None
}

fn id_of(message: &[u8]) -> u16 {
    message.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

async fn serve_dns_tcp(shared: &Shared, mut stream: TcpStream, from: Ipv4Addr) -> io::Result<()> {
    loop {
        let query = match tokio::time::timeout(HEADER_TIME, read_message(&mut stream, 1500)).await {
            Ok(query) => query?,
            Err(_) => return Ok(()),
        };
        if !shared.shares.may_ask(from) {
            return Ok(());
        }
        let answer = match judge(shared, from, &query) {
            dns::Verdict::Drop => return Ok(()),
            dns::Verdict::Answer(answer) => Some(answer),
            dns::Verdict::Forward => match forward_tcp(&shared.knowledge.resolv_conf, &query).await {
                Some(answer) => Some(answer),
                None => dns::failure(&query),
            },
        };
        let Some(answer) = answer else { return Ok(()) };
        write_message(&mut stream, &answer).await?;
    }
}

async fn forward_tcp(resolv_conf: &Path, query: &[u8]) -> Option<Vec<u8>> {
    for resolver in resolvers(resolv_conf).await {
        let asked = dns::with_id(query, fresh_id()?);
        let exchange = async {
            let mut stream = TcpStream::connect((resolver, service::DNS_TP)).await?;
            write_message(&mut stream, &asked).await?;
            read_message(&mut stream, DNS_TCP_LIMIT).await
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(RESOLVER_TIME, exchange).await
            && dns::answers(&asked, &answer)
        {
            return Some(dns::with_id(&answer, id_of(query)));
        }
    }
    None
}

/// A DNS message over TCP: two bytes of length, then it (RFC 1035 §4.2.2).
async fn read_message(stream: &mut TcpStream, limit: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > limit {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_fills_its_own_share_only() {
        let shares = Arc::new(Shares::default());
        let (one, other) = (service::link_local(16), service::link_local(17));
        let slots: Vec<_> = (0..PER_PORT).map(|_| shares.take(one).unwrap()).collect();
        assert!(shares.take(one).is_none());
        let theirs = shares.take(other).unwrap();
        drop(slots);
        assert!(shares.take(one).is_some());
        drop(theirs);
        assert_eq!(shares.taken.lock().unwrap().all, 0);

        let asked = (0..5000).filter(|_| shares.may_ask(one)).count();
        assert!((1024..2000).contains(&asked), "{asked}");
        assert!(shares.may_ask(other));
    }

    #[test]
    fn the_node_has_a_limit_too() {
        let shares = Arc::new(Shares::default());
        let mut slots = vec![];
        for no in 16.. {
            let before = slots.len();
            slots.extend((0..PER_PORT).filter_map(|_| shares.take(service::link_local(no))));
            if slots.len() == before {
                break;
            }
        }
        assert_eq!(slots.len(), IN_ALL);
    }

    #[test]
    fn only_ports_are_served() {
        let from = |text: &str| port_of(text.parse().unwrap());
        assert!(from("169.254.64.16:1").is_some());
        // One port has one share, whichever of its addresses asks.
        let further = service::source(16, 3).unwrap();
        assert_eq!(port_of(SocketAddr::from((further, 1))), from("169.254.64.16:1"));
        for stranger in ["169.254.64.1:1", "240.0.0.1:1", "10.0.0.1:1", "127.0.0.1:1", "[::1]:1"] {
            assert!(from(stranger).is_none(), "{stranger}");
        }
    }
}
