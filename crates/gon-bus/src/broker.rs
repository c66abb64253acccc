//! What an operator's RabbitMQ must know of us: a user for every role that uses the bus, each with its own rights and no
//! more, and what all of them share.
//!
//! A role may make, read and delete its own queues, publish doorbells, and listen to the subjects it works on. It may
//! not touch another role's queues, read dead messages, delete what is shared, or see any other virtual host. Agents
//! have no user: they pull their documents and never hear the bus.

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gon_proto::doorbell::Subject;
use gon_types::Role;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use crate::rabbit::{Argument, DEAD, DOORBELLS, QUEUES, arguments_of_dead};

/// Rights of one user in our virtual host, as RabbitMQ's regular expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// What it may make and delete.
    pub configure: String,
    /// What it may publish to, and what may be bound to something else.
    pub write: String,
    /// What it may take messages from, and what it may bind its queues to.
    pub read: String,
    /// Keys it may publish doorbells with.
    pub publish: String,
    /// Keys it may listen to.
    pub listen: String,
}

/// The rights of a role's user; none if that role does not use the bus.
#[must_use]
pub fn permissions(role: Role) -> Option<Permissions> {
    let subjects: &[Subject] = match role {
        Role::ApiServer => &[Subject::Event],
        Role::NetworkController => &[Subject::Vpc, Subject::Node],
        Role::InstanceManager => &[Subject::Instance, Subject::Node],
        Role::HypervisorAgent
        | Role::NetworkAgent
        | Role::ContainerAgent
        | Role::StorageAgent
        | Role::Bus
        | Role::Cluster
        | Role::Database
        | Role::Operator => return None,
    };
    let [doorbells, dead, queues] = [DOORBELLS, DEAD, QUEUES].map(|name| name.replace('.', "\\."));
    let own = format!("{queues}{role}\\..*");
    Some(Permissions {
        configure: format!("^{own}$"),
        // To `gon.dead` because a queue's owner must be allowed to set messages aside there.
        write: format!("^({doorbells}|{dead}|{own})$"),
        read: format!("^({doorbells}|{own})$"),
        // Whoever writes the outbox relays all of it.
        publish: any_of(&Subject::ALL),
        listen: any_of(subjects),
    })
}

fn any_of(subjects: &[Subject]) -> String {
    let names: Vec<_> = subjects.iter().map(|subject| subject.as_str()).collect();
    format!("^({})$", names.join("|"))
}

/// The name of a role's user.
#[must_use]
pub fn user(role: Role) -> String {
    format!("gon-{role}")
}

/// Why there are no definitions.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionsError {
    /// That role does not use the bus.
    #[error("{0} does not use the bus")]
    Role(Role),
    /// The system gives no random numbers.
    #[error("no random numbers")]
    Random,
}

/// Everything RabbitMQ must have before our processes come, for `rabbitmqctl import_definitions` or `load_definitions`:
/// the virtual host, users with these passwords, their rights, and what all share. Loading it again changes nothing but
/// the passwords' salts. Roles that have no password here get no user.
pub fn definitions(
    vhost: &str,
    passwords: &[(Role, SecretString)],
    cluster: bool,
) -> Result<Value, DefinitionsError> {
    let (mut users, mut rights, mut topics) = (Vec::new(), Vec::new(), Vec::new());
    for (role, password) in passwords {
        let permissions = permissions(*role).ok_or(DefinitionsError::Role(*role))?;
        let name = user(*role);
        let mut salt = [0; 4];
        rand::fill(&mut salt).map_err(|_| DefinitionsError::Random)?;
        users.push(json!({
            "name": name, "password_hash": password_hash(password, salt),
            "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": [], "limits": {},
        }));
        rights.push(json!({
            "user": name, "vhost": vhost,
            "configure": permissions.configure, "write": permissions.write, "read": permissions.read,
        }));
        topics.push(json!({
            "user": name, "vhost": vhost, "exchange": DOORBELLS,
            "write": permissions.publish, "read": permissions.listen,
        }));
    }
    let exchange = |name: &str, kind: &str| {
        json!({
            "name": name, "vhost": vhost, "type": kind,
            "durable": true, "auto_delete": false, "internal": false, "arguments": {},
        })
    };
    let arguments: Map<String, Value> = arguments_of_dead(cluster)
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                Argument::Text(text) => json!(text),
                Argument::Number(number) => json!(number),
            };
            (name.to_owned(), value)
        })
        .collect();
    Ok(json!({
        "users": users,
        "vhosts": [{"name": vhost}],
        "permissions": rights,
        "topic_permissions": topics,
        "exchanges": [exchange(DOORBELLS, "topic"), exchange(DEAD, "fanout")],
        "queues": [{
            "name": DEAD, "vhost": vhost, "durable": true, "auto_delete": false, "arguments": arguments,
        }],
        "bindings": [{
            "source": DEAD, "vhost": vhost, "destination": DEAD, "destination_type": "queue",
            "routing_key": "", "arguments": {},
        }],
    }))
}

/// RabbitMQ's documented scheme: base64 of the salt and of SHA-256 over salt and password.
fn password_hash(password: &SecretString, salt: [u8; 4]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&salt);
    hash.update(password.expose_secret().as_bytes());
    STANDARD.encode([&salt, hash.finish().as_ref()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_documented_one() {
        // The worked example of RabbitMQ's guide to passwords.
        let hash = password_hash(&SecretString::from("test12"), [0x90, 0x8D, 0xC6, 0x0A]);
        assert_eq!(hash, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    #[test]
    fn who_does_not_use_the_bus_has_no_rights() {
        let users: Vec<_> = Role::ALL.iter().filter(|role| permissions(**role).is_some()).collect();
        assert_eq!(users, Role::CONTROL.iter().collect::<Vec<_>>());
        assert!(definitions("gon", &[(Role::NetworkAgent, SecretString::from("x"))], false).is_err());
    }

    #[test]
    fn no_password_is_in_the_definitions() {
        let secret = SecretString::from("correct horse");
        let text = definitions("gon", &[(Role::ApiServer, secret)], true).unwrap().to_string();
        assert!(!text.contains("correct") && text.contains("gon-api-server"), "{text}");
    }
}
