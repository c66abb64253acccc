use std::path::Path;
use std::time::Duration;

use gon_testkit::rabbitmq::{self, Broker};

#[tokio::test]
async fn a_broker_keeps_what_it_has_and_leaves_nothing_behind() {
    let broker = Broker::start("").await.unwrap();
    let vhost = broker.vhost().await.unwrap();
    let declare = format!(
        "{{new, _}} = rabbit_amqqueue:declare(rabbit_misc:r(<<\"{}\">>, queue, <<\"kept\">>), true, false, [], none, \
         <<\"test\">>), ok",
        vhost.name
    );
    assert_eq!(broker.eval(&declare).await.unwrap(), "ok");
    // What it was told a moment ago it has not written yet; whoever is killed right then forgets it.
    assert_eq!(broker.eval("mnesia:sync_log()").await.unwrap(), "ok");
    assert!(broker.eval("1 = 2").await.is_err(), "a raised error is no value");

    broker.kill().await.unwrap();
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", broker.port())).await.is_err());
    broker.restart().await.unwrap();
    assert_eq!(broker.queues(&vhost.name).await.unwrap(), [("kept".to_owned(), 0)]);

    broker.stop().await.unwrap();
    broker.restart().await.unwrap();
    assert_eq!(broker.queues(&vhost.name).await.unwrap(), [("kept".to_owned(), 0)]);

    broker.disk_alarm(true).await.unwrap();
    broker.disk_alarm(false).await.unwrap();

    let (directory, port) = (broker.directory().to_owned(), broker.port());
    drop(broker);
    for _ in 0..100 {
        if !Path::new(&directory).exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!directory.exists(), "its files are still there");
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it still runs");
}

#[tokio::test]
async fn every_test_has_a_vhost_of_its_own() {
    let (one, other) = tokio::join!(rabbitmq::vhost(), rabbitmq::vhost());
    assert_ne!(one.name, other.name);
    assert_ne!(one.url, other.url);
    let broker = rabbitmq::shared().await;
    assert_eq!(broker.queues(&one.name).await.unwrap(), []);
    assert!(one.url.contains(&broker.port().to_string()) && other.url.contains(&broker.port().to_string()));
}
