//! A role's user can do what its role does, and nothing else.

use gon_bus::{Bus, RabbitConfig, broker};
use gon_proto::doorbell::Subject;
use gon_testkit::rabbitmq;
use gon_types::Role;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};
use secrecy::SecretString;

use crate::raw::{bell, hear, insist, patient};

const ROLES: [(Role, &[Subject]); 3] = [
    (Role::ApiServer, &[Subject::Event]),
    (Role::NetworkController, &[Subject::Vpc, Subject::Node]),
    (Role::InstanceManager, &[Subject::Instance, Subject::Node]),
];

/// Loads the definitions as `gond admin init` does; returns each role's URL.
async fn site(vhost: &str) -> Vec<(Role, &'static [Subject], String)> {
    let broker = rabbitmq::shared().await;
    let passwords: Vec<_> =
        ROLES.iter().map(|(role, _)| (*role, SecretString::from(format!("secret-of-{role}")))).collect();
    let definitions = broker::definitions(vhost, &passwords, false).unwrap().to_string();
    broker.import(&definitions).await.unwrap();
    // Twice is as good as once.
    broker.import(&definitions).await.unwrap();
    let url = |role: Role| broker.url(&broker::user(role), &format!("secret-of-{role}"), vhost);
    ROLES.iter().map(|(role, subjects)| (*role, *subjects, url(*role))).collect()
}

#[tokio::test]
async fn roles_have_what_they_need_and_no_more() {
    let site = site("permissions").await;
    let mut ears = Vec::new();
    let mut buses = Vec::new();
    for (role, subjects, url) in &site {
        let bus =
            gon_bus::connect(&patient(RabbitConfig::new(url.as_str().into(), *role, "server-1"))).unwrap();
        ears.push((bus.subscribe(subjects).await.unwrap(), *subjects));
        buses.push(bus);
    }
    // Every role's relay rings every bell, and who works on it hears it.
    for bus in &buses {
        for subject in Subject::ALL {
            let bell = bell(subject);
            insist(bus, &[bell]).await;
            for (ear, _) in ears.iter_mut().filter(|(_, subjects)| subjects.contains(&subject)) {
                assert!(!hear(ear, bell).await);
            }
        }
    }
    let queues = rabbitmq::shared().await.queues("permissions").await.unwrap();
    assert_eq!(queues.len(), 4, "{queues:?}");
    for (role, subjects, url) in &site {
        forbidden(*role, subjects, url, &queues).await;
    }
}

/// Each of these is refused; a channel that was refused something is closed, so each has its own.
async fn forbidden(role: Role, subjects: &[Subject], url: &str, queues: &[(String, u64)]) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let own = format!("gon.q.{role}.");
    let others: Vec<_> =
        queues.iter().map(|(name, _)| name.clone()).filter(|name| !name.starts_with(&own)).collect();
    assert_eq!(others.len(), 3, "two of other roles and the dead");
    let none = FieldTable::default;
    for queue in &others {
        let queue = || queue.as_str().into();
        let channel = connection.create_channel().await.unwrap();
        let result = channel.basic_consume(queue(), "".into(), BasicConsumeOptions::default(), none()).await;
        refused(role, "consume another's queue", result.map(|_| ()));
        let channel = connection.create_channel().await.unwrap();
        let result = channel.queue_delete(queue(), QueueDeleteOptions::default()).await;
        refused(role, "delete another's queue", result.map(|_| ()));
        let channel = connection.create_channel().await.unwrap();
        let result = channel.queue_purge(queue(), QueuePurgeOptions::default()).await;
        refused(role, "purge another's queue", result.map(|_| ()));
    }
    for exchange in ["gon.doorbells", "gon.dead", "amq.topic"] {
        let channel = connection.create_channel().await.unwrap();
        let result = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
        refused(role, "delete an exchange", result);
    }
    let channel = connection.create_channel().await.unwrap();
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let result = channel.exchange_declare("other".into(), ExchangeKind::Direct, options, none()).await;
    refused(role, "make an exchange", result);
    let names = ["other".to_owned(), "gon.q.other.x".to_owned(), format!("x.{own}"), format!("gon.q.{role}")];
    for name in names {
        let channel = connection.create_channel().await.unwrap();
        let result =
            channel.queue_declare(name.as_str().into(), QueueDeclareOptions::default(), none()).await;
        refused(role, "make a queue of another name", result.map(|_| ()));
    }
    let mine = format!("{own}test");
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare(mine.as_str().into(), QueueDeclareOptions::default(), none()).await.unwrap();
    let foreign: Vec<_> = Subject::ALL.iter().filter(|subject| !subjects.contains(subject)).collect();
    let keys = foreign.iter().map(|subject| subject.as_str()).chain(["#", "*"]);
    for key in keys {
        let channel = connection.create_channel().await.unwrap();
        let exchange = || "gon.doorbells".into();
        let options = QueueBindOptions::default();
        let result = channel.queue_bind(mine.as_str().into(), exchange(), key.into(), options, none()).await;
        refused(role, "listen to what is not its work", result);
    }
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(mine.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    for (exchange, key) in [("", "gon.dead"), ("amq.topic", "vpc"), ("gon.doorbells", "anything")] {
        refused(role, "publish elsewhere", publish(&connection, exchange, key).await);
    }
    let elsewhere = url.replace("/permissions", "/%2f");
    assert!(
        Connection::connect(&elsewhere, ConnectionProperties::default()).await.is_err(),
        "{role} elsewhere"
    );
}

async fn publish(connection: &Connection, exchange: &str, key: &str) -> lapin::Result<()> {
    let channel: Channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish(exchange.into(), key.into(), options, b"x", properties).await?.await.map(|_| ())
}

fn refused(role: Role, what: &str, result: lapin::Result<()>) {
    match result {
        Ok(()) => panic!("{role} may {what}"),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(error) if error.get_message().as_str().contains("ACCESS_REFUSED") => {}
            ErrorKind::ProtocolError(error) if error.get_message().as_str().contains("refused for user") => {}
            _ => panic!("{role} could not {what} for another reason: {error}"),
        },
    }
}

#[tokio::test]
async fn a_wrong_password_is_no_password() {
    let site = site("passwords").await;
    for (role, _, url) in site {
        let wrong = url.replace("secret-of-", "secret-for-");
        assert!(Connection::connect(&wrong, ConnectionProperties::default()).await.is_err(), "{role}");
        Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    }
}
