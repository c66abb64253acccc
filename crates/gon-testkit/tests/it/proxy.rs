use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::time::Duration;

use gon_testkit::proxy::{Direction, End, Faults, Proxy, amqp, lines};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(10);
/// Nothing happens within this.
const QUIET: Duration = Duration::from_millis(200);

/// A server that answers with what it hears, to the end, and a proxy in front of it.
async fn echo(seed: u64) -> (Proxy, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    (Proxy::start(address, Some(lines), seed).await.unwrap(), server)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Sends `count` numbered lines and returns what comes back until it ends.
async fn numbers(proxy: &Proxy, count: u32) -> Vec<u32> {
    let (read, mut write) = connect(proxy).await.into_split();
    let sender = tokio::spawn(async move {
        for n in 0..count {
            write.write_all(format!("{n}\n").as_bytes()).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    let mut back = BufReader::new(read).lines();
    while let Some(line) = timeout(SOON, back.next_line()).await.unwrap().unwrap() {
        got.push(line.parse().unwrap());
    }
    sender.await.unwrap();
    got
}

#[tokio::test]
async fn without_faults_nothing_changes() {
    let (proxy, _server) = echo(1).await;
    // More than fits into what it may hold, so that the brakes are tried as well.
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut read, mut write) = connect(&proxy).await.into_split();
    let copy = sent.clone();
    let sender = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(SOON, read.read_to_end(&mut got)).await.unwrap().unwrap();
    sender.await.unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    assert_eq!(numbers(&proxy, 1000).await, (0..1000).collect::<Vec<_>>());
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn a_delay_holds_each_direction() {
    let (proxy, _server) = echo(1).await;
    let mut stream = connect(&proxy).await;
    let mut answer = [0; 2];
    let ask = async |stream: &mut TcpStream, answer: &mut [u8; 2]| {
        let begin = Instant::now();
        stream.write_all(b"a\n").await.unwrap();
        timeout(SOON, stream.read_exact(answer)).await.unwrap().unwrap();
        begin.elapsed()
    };
    assert!(ask(&mut stream, &mut answer).await < Duration::from_millis(150));
    proxy.set(Direction::ToServer, Faults { delay: Duration::from_millis(150), ..Faults::default() });
    proxy.set(
        Direction::ToClient,
        Faults { delay: Duration::from_millis(100), jitter: Duration::from_millis(50), ..Faults::default() },
    );
    let took = ask(&mut stream, &mut answer).await;
    assert!(took >= Duration::from_millis(250), "{took:?}");
    proxy.heal();
    assert!(ask(&mut stream, &mut answer).await < Duration::from_millis(150));
}

#[tokio::test]
async fn a_cap_slows() {
    let (proxy, _server) = echo(1).await;
    proxy
        .set(Direction::ToServer, Faults { bytes_per_second: NonZeroU32::new(100_000), ..Faults::default() });
    let begin = Instant::now();
    let (mut read, mut write) = connect(&proxy).await.into_split();
    let sender = tokio::spawn(async move {
        write.write_all(&[b'x'; 50_000]).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    timeout(SOON, read.read_to_end(&mut got)).await.unwrap().unwrap();
    sender.await.unwrap();
    assert_eq!(got.len(), 50_000);
    assert!(begin.elapsed() >= Duration::from_millis(450), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn frozen_is_silent_and_thawed_goes_on() {
    let (proxy, _server) = echo(1).await;
    let mut stream = connect(&proxy).await;
    let mut answer = [0; 2];
    for frozen in [Direction::ToServer, Direction::ToClient] {
        proxy.set(frozen, Faults::frozen());
        stream.write_all(b"a\n").await.unwrap();
        assert!(timeout(QUIET, stream.read_exact(&mut answer)).await.is_err(), "{frozen:?}");
        proxy.heal();
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"a\n");
    }
    // And who comes while it is frozen waits, too.
    proxy.set_both(Faults::frozen());
    let mut other = connect(&proxy).await;
    other.write_all(b"b\n").await.unwrap();
    assert!(timeout(QUIET, other.read_exact(&mut answer)).await.is_err());
    proxy.heal();
    timeout(SOON, other.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"b\n");
}

#[tokio::test]
async fn connections_end_as_told() {
    let (proxy, _server) = echo(1).await;
    let mut rest = Vec::new();
    let mut stream = connect(&proxy).await;
    stream.write_all(b"a\n").await.unwrap();
    timeout(SOON, stream.read_exact(&mut [0; 2])).await.unwrap().unwrap();
    proxy.end(End::Close);
    assert_eq!(timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap().unwrap(), 0);

    let mut stream = connect(&proxy).await;
    stream.write_all(b"a\n").await.unwrap();
    timeout(SOON, stream.read_exact(&mut [0; 2])).await.unwrap().unwrap();
    proxy.end(End::Reset);
    let error = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    proxy.refuse(true);
    let refused = async {
        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream.write_all(b"a\n").await?;
        stream.read_exact(&mut [0; 2]).await
    };
    assert_eq!(timeout(SOON, refused).await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.refuse(false);
    assert_eq!(numbers(&proxy, 3).await, [0, 1, 2]);
}

#[tokio::test]
async fn bytes_end_where_told() {
    let (proxy, _server) = echo(1).await;
    proxy.set(Direction::ToClient, Faults { truncate_after: Some(10), ..Faults::default() });
    let mut stream = connect(&proxy).await;
    stream.write_all(&[b'x'; 100]).await.unwrap();
    stream.write_all(b"\n").await.unwrap();
    let mut got = Vec::new();
    timeout(SOON, stream.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got.len(), 10);

    proxy.set(Direction::ToClient, Faults { reset_after: Some(20), ..Faults::default() });
    let mut stream = connect(&proxy).await;
    stream.write_all(&[b'x'; 100]).await.unwrap();
    stream.write_all(b"\n").await.unwrap();
    let mut got = Vec::new();
    let error = timeout(SOON, stream.read_to_end(&mut got)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(got.len() <= 20);
}

#[tokio::test]
async fn chance_acts_on_frames_and_comes_again_with_its_seed() {
    let faults = Faults { drop: 100, duplicate: 100, swap: 100, ..Faults::default() };
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        let (proxy, _server) = echo(seed).await;
        proxy.set(Direction::ToServer, faults);
        runs.push(numbers(&proxy, 1000).await);
    }
    let got = runs[0].clone();
    // A busy machine may separate two frames that were to change places: what comes is the same, not when.
    for run in &mut runs {
        run.sort_unstable();
    }
    assert_eq!(runs[0], runs[1], "the same seed");
    assert_ne!(runs[0], runs[2], "another seed");
    let times = |n: u32| got.iter().filter(|m| **m == n).count();
    let (lost, twice) =
        ((0..1000).filter(|n| times(*n) == 0).count(), (0..1000).filter(|n| times(*n) == 2).count());
    let swapped = got.windows(2).filter(|pair| pair[0] > pair[1]).count();
    for (what, count) in [("lost", lost), ("twice", twice), ("swapped", swapped)] {
        assert!((50..200).contains(&count), "{what}: {count} of 1000");
    }
}

#[tokio::test]
async fn a_frame_that_nothing_follows_is_not_held_for_ever() {
    let (proxy, _server) = echo(1).await;
    proxy.set(Direction::ToServer, Faults { swap: 1000, ..Faults::default() });
    let mut stream = connect(&proxy).await;
    stream.write_all(b"a\n").await.unwrap();
    timeout(SOON, stream.read_exact(&mut [0; 2])).await.unwrap().unwrap();
}

#[test]
fn frames_are_found() {
    assert_eq!(amqp(b"AMQP\x00\x00\x09\x01rest"), Some(8));
    assert_eq!(amqp(&[1, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0xCE, 8]), Some(13));
    assert_eq!(amqp(&[1, 0, 0, 0, 0, 0]), None);
    assert_eq!(amqp(&[1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]), Some(0x1_0000_0007));
    assert_eq!(lines(b"ab\nc"), Some(3));
    assert_eq!(lines(b"ab"), None);
    assert_eq!(amqp(b""), None);
}
