//! The link: long polls, answers that are none, controllers that come and go.

use std::time::{Duration, Instant};

use gon_agent::link::{Link, LinkError};
use gon_proto::{NetworkReport, NodeNetwork, paths};
use gon_types::DocumentVersion;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::controller::Controller;
use crate::samples;

fn report() -> NetworkReport {
    NetworkReport {
        format: gon_proto::FORMAT,
        node: samples::node(),
        applied: DocumentVersion::default(),
        vpcs: vec![],
        ports: vec![],
        overlay: None,
    }
}

#[tokio::test]
async fn a_document_comes_as_soon_as_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let link = Link::unix(&socket);
    let get = |after| link.get_document::<NodeNetwork>(paths::NETWORK_DOCUMENT, after);
    let error = get(DocumentVersion::default()).await.unwrap_err();
    assert!(matches!(error, LinkError::Connect { .. }) && error.is_transient(), "{error}");

    let controller = Controller::start(&socket);
    controller.publish(samples::document(1, vec![]));
    let first = get(DocumentVersion::default()).await.unwrap().unwrap();
    assert_eq!(first, samples::document(1, vec![]));
    let start = Instant::now();
    let later = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        controller.publish(samples::document(2, vec![]));
    };
    let (second, ()) = tokio::join!(get(first.version), later);
    assert_eq!(second.unwrap().unwrap().version.generation, 2);
    println!("published to received: {:?}", start.elapsed() - Duration::from_millis(200));
    link.post_report(paths::NETWORK_REPORT, &report()).await.unwrap();

    // Another controller behind the same address: the kept connection is dead, the call is not.
    drop(controller);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let controller = Controller::start(&socket);
    controller.publish(samples::document(3, vec![]));
    assert_eq!(get(second_version()).await.unwrap().unwrap().version.generation, 3);
    let error = link.post_report("/nothing/here", &report()).await.unwrap_err();
    assert!(matches!(error, LinkError::Refused { status: 404, .. }) && !error.is_transient(), "{error}");
}

fn second_version() -> DocumentVersion {
    DocumentVersion { epoch: 1, generation: 2 }
}

#[tokio::test]
async fn nonsense_is_an_error_not_a_document() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{",
        "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy",
        "not http at all\r\n\r\n",
    ];
    tokio::spawn(async move {
        for answer in answers.into_iter().cycle() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1000];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    for (n, _) in answers.iter().enumerate() {
        let link = Link::unix(&socket);
        let error = link
            .get_document::<NodeNetwork>(paths::NETWORK_DOCUMENT, DocumentVersion::default())
            .await
            .unwrap_err();
        let expected = match n {
            0 | 1 => matches!(error, LinkError::Unreadable(_)),
            2 => matches!(error, LinkError::Refused { status: 503, .. }) && error.is_transient(),
            _ => matches!(error, LinkError::Broken(_)),
        };
        assert!(expected, "{n}: {error:?}");
    }
}
