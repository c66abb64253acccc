//! A closed loop of HTTP/1.1 requests on connections that stay open, as thin as can be, the same for both sides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::Namespace;

use crate::report::percentile;

/// Who is asked, and what is sent along with every request.
#[derive(Debug, Clone)]
pub struct Server {
    pub inside: Namespace,
    pub address: SocketAddr,
    pub headers: String,
}

impl Server {
    /// The bytes of a request.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{}Content-Length: {}\r\n\r\n{body}",
            self.address,
            self.headers,
            body.len()
        )
        .into_bytes()
    }
    /// One request on a connection of its own; the body of a good answer.
    pub fn once(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let mut connection = Connection { server: self, stream: None };
        let (status, answer) = connection.call(&self.request(method, path, body))?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if !(200..300).contains(&status) {
            bail!("{method} {path} {body}: {status} {answer:.500}");
        }
        Ok(answer)
    }
}

struct Connection<'s> {
    server: &'s Server,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection<'_> {
    /// Sends one request; connects when there is no connection, or when the open one was closed by the server.
    fn call(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let fresh = self.stream.is_none();
        match self.attempt(request) {
            Err(_) if !fresh => {
                self.stream = None;
                self.attempt(request)
            }
            answer => answer,
        }
    }

    fn attempt(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        if self.stream.is_none() {
            let stream = self.server.inside.enter(|| Ok(TcpStream::connect(self.server.address)?))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(120)))?;
            self.stream = Some(BufReader::with_capacity(1 << 16, stream));
        }
        let stream = self.stream.as_mut().context("a connection")?;
        stream.get_mut().write_all(request)?;
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        let status = line.split(' ').nth(1).and_then(|s| s.trim().parse().ok()).context("a status")?;
        let mut close = line.starts_with("HTTP/1.0");
        let (mut length, mut chunked) = (None, false);
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().ok();
            }
            chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
            if let Some(value) = header.strip_prefix("connection:") {
                close = value.trim() == "close";
            }
        }
        let mut body = Vec::new();
        if chunked {
            loop {
                line.clear();
                stream.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)?;
                let at = body.len();
                body.resize(at + size, 0);
                stream.read_exact(&mut body[at..])?;
                line.clear();
                stream.read_line(&mut line)?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        } else if status != 204 {
            stream.read_to_end(&mut body)?;
            close = true;
        }
        if close {
            self.stream = None;
        }
        Ok((status, body))
    }
}

/// What a load saw. Times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub per_second: f64,
    pub p50: f64,
    pub p95: f64,
}

/// `count` requests on `connections` connections, each sent as soon as the last was answered. Every answer must be good.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub fn load(
    server: &Server,
    connections: usize,
    count: usize,
    make: impl Fn(usize) -> Vec<u8> + Sync,
) -> anyhow::Result<Load> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let times: anyhow::Result<Vec<Vec<f64>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection { server, stream: None };
                    let mut times = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return Ok(times);
                        }
                        let request = make(number);
                        let begin = Instant::now();
                        let (status, body) = connection.call(&request)?;
                        times.push(begin.elapsed().as_secs_f64() * 1e3);
                        if !(200..300).contains(&status) {
                            bail!("{status} {:.500}", String::from_utf8_lossy(&body));
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?).collect()
    });
    let took = start.elapsed().as_secs_f64();
    let mut times: Vec<f64> = times?.into_iter().flatten().collect();
    times.sort_by(f64::total_cmp);
    Ok(Load {
        per_second: times.len() as f64 / took,
        p50: percentile(&times, 0.5),
        p95: percentile(&times, 0.95),
    })
}
