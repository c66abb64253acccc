//! RabbitMQ and etcd of the first server: TLS only, with our certificates; of RabbitMQ a virtual host and a user for
//! each role, with its own rights and no more.

use std::path::{Path, PathBuf};

use anyhow::Context;
use gon_types::Role;
use secrecy::{ExposeSecret as _, SecretString};

use super::files::{self, Owner, SECRET};
use super::units;
use crate::admin::steps::Done;
use crate::api::generate_password;

/// The virtual host.
const VHOST: &str = "gon";
/// Port of AMQP over TLS.
pub const AMQPS: u16 = 5671;
/// Port of etcd for clients.
pub const ETCD: u16 = 2379;

const RABBIT_CONF: &str = "/etc/rabbitmq/conf.d/50-gon.conf";
const RABBIT_DEFINITIONS: &str = "/etc/rabbitmq/gon-definitions.json";
const ETCD_UNIT: &str = "/etc/systemd/system/etcd.service.d/50-gon.conf";

/// Where the certificate of one of the servers we use is, beside those of our own roles, for it is not ours to read.
#[must_use]
pub fn tls_dir(role: Role) -> PathBuf {
    Path::new("/etc/gon").join(role.as_str())
}

/// Where systemd finds what it gives a role: the URL of the bus with its password.
#[must_use]
pub fn credential(role: Role) -> PathBuf {
    Path::new("/etc/gon/credentials").join(format!("{role}.bus.url"))
}

/// The password in a credential of an earlier run: it stays as it is, and so do the services that use it.
fn kept_password(text: &str) -> Option<SecretString> {
    let rest = text.trim().strip_prefix("amqps://")?;
    let (credentials, _) = rest.split_once('@')?;
    let (_, password) = credentials.split_once(':')?;
    Some(SecretString::from(password.to_owned()))
}

/// Sets RabbitMQ up and starts it again if anything changed.
pub async fn rabbitmq(address: &str) -> anyhow::Result<Done> {
    let (mut passwords, mut changed) = (Vec::new(), false);
    for role in Role::CONTROL.iter().copied().filter(|r| gon_bus::broker::permissions(*r).is_some()) {
        let path = credential(role);
        let password = match std::fs::read_to_string(&path).ok().as_deref().and_then(kept_password) {
            Some(kept) => kept,
            None => SecretString::from(generate_password()?),
        };
        let user = gon_bus::broker::user(role);
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let url = format!("amqps://{user}:{}@{host}:{AMQPS}/{VHOST}\n", password.expose_secret());
        changed |= files::put(&path, &url, SECRET)?;
        passwords.push((role, password));
    }
    let owner = Owner { user: "rabbitmq", mode: 0o600 };
    let definitions = Path::new(RABBIT_DEFINITIONS);
    // Salts differ from run to run; what is there is good as long as the passwords are.
    if changed || !definitions.exists() {
        let text = gon_bus::broker::definitions(VHOST, &passwords, false)?;
        changed |= files::put(definitions, &serde_json::to_string_pretty(&text)?, owner)?;
    }
    changed |= files::put(Path::new(RABBIT_CONF), &rabbit_conf(&tls_dir(Role::Bus)), files::PUBLIC)?;
    if changed {
        units::restart("rabbitmq-server.service").await.context("RabbitMQ")?;
    } else {
        units::start("rabbitmq-server.service").await.context("RabbitMQ")?;
    }
    Ok(if changed { Done::Now } else { Done::Already })
}

fn rabbit_conf(tls: &Path) -> String {
    let tls = tls.display();
    format!(
        "# Of Gon Cloud Platform; 'gond admin init' writes it. Only TLS, and only with a certificate of the site.\n\
         listeners.tcp = none\n\
         listeners.ssl.default = {AMQPS}\n\
         ssl_options.cacertfile = {tls}/ca.crt\n\
         ssl_options.certfile = {tls}/bus.crt\n\
         ssl_options.keyfile = {tls}/bus.key\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = true\n\
         ssl_options.versions.1 = tlsv1.3\n\
         max_message_size = 262144\n\
         load_definitions = {RABBIT_DEFINITIONS}\n"
    )
}

/// Sets etcd up and starts it again if anything changed.
pub async fn etcd(address: &str) -> anyhow::Result<Done> {
    let changed =
        files::put(Path::new(ETCD_UNIT), &etcd_unit(address, &tls_dir(Role::Cluster)), files::PUBLIC)?;
    if changed {
        units::reload().await?;
        units::restart("etcd.service").await.context("etcd")?;
    } else {
        units::start("etcd.service").await.context("etcd")?;
    }
    Ok(if changed { Done::Now } else { Done::Already })
}

/// The URL of etcd.
#[must_use]
pub fn etcd_url(address: &str) -> String {
    if address.contains(':') {
        format!("https://[{address}]:{ETCD}")
    } else {
        format!("https://{address}:{ETCD}")
    }
}

fn etcd_unit(address: &str, tls: &Path) -> String {
    let (tls, url) = (tls.display(), etcd_url(address));
    format!(
        "# Of Gon Cloud Platform; 'gond admin init' writes it. Only TLS, and only with a certificate of the site that was\n\
         # not revoked. One member: who is alive is all that it knows, and that is found out again.\n\
         [Service]\n\
         Environment=ETCD_LISTEN_CLIENT_URLS=https://0.0.0.0:{ETCD}\n\
         Environment=ETCD_ADVERTISE_CLIENT_URLS={url}\n\
         Environment=ETCD_LISTEN_PEER_URLS=http://127.0.0.1:2380\n\
         Environment=ETCD_CLIENT_CERT_AUTH=true\n\
         Environment=ETCD_TRUSTED_CA_FILE={tls}/ca.crt\n\
         Environment=ETCD_CERT_FILE={tls}/cluster.crt\n\
         Environment=ETCD_KEY_FILE={tls}/cluster.key\n\
         Environment=ETCD_CLIENT_CRL_FILE={tls}/ca.crl\n\
         Environment=ETCD_AUTO_COMPACTION_MODE=periodic\n\
         Environment=ETCD_AUTO_COMPACTION_RETENTION=1h\n\
         Restart=always\n\
         RestartSec=2\n"
    )
}

/// Takes away what was set up. Both go on as their packages have them.
pub async fn remove(data: bool) -> anyhow::Result<()> {
    let rabbit = files::remove(Path::new(RABBIT_CONF))?;
    files::remove(Path::new(RABBIT_DEFINITIONS))?;
    let etcd = files::remove(Path::new(ETCD_UNIT))?;
    let _ = std::fs::remove_dir(Path::new(ETCD_UNIT).with_file_name(""));
    for role in [Role::Bus, Role::Cluster] {
        match std::fs::remove_dir_all(tls_dir(role)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    if rabbit {
        if data {
            use gon_driver::run::{Cmd, run};
            // Its users go with it, as far as they have no other.
            let _ = run(Cmd::new("rabbitmqctl").args(["delete_vhost", VHOST])).await;
            for role in Role::CONTROL {
                let _ =
                    run(Cmd::new("rabbitmqctl").arg("delete_user").arg(gon_bus::broker::user(*role))).await;
            }
        }
        units::restart("rabbitmq-server.service").await?;
    }
    if etcd {
        units::reload().await?;
        units::restart("etcd.service").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_survive_another_run() {
        let url = "amqps://gon-api-server:abc23@10.0.0.1:5671/gon\n";
        assert_eq!(kept_password(url).unwrap().expose_secret(), "abc23");
        for bad in ["", "amqp://a:b@c", "amqps://nobody", "amqps://user@host"] {
            assert!(kept_password(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn both_want_certificates_and_nothing_is_plain() {
        let rabbit = rabbit_conf(Path::new("/etc/gon/bus"));
        assert!(rabbit.contains("listeners.tcp = none") && rabbit.contains("fail_if_no_peer_cert = true"));
        let etcd = etcd_unit("10.0.0.1", Path::new("/etc/gon/cluster"));
        assert!(
            etcd.contains("ETCD_CLIENT_CERT_AUTH=true") && etcd.contains("CLIENT_URLS=https://0.0.0.0:2379")
        );
        assert!(etcd.contains("ADVERTISE_CLIENT_URLS=https://10.0.0.1:2379"));
        assert_eq!(etcd_url("fd00::1"), "https://[fd00::1]:2379");
    }
}
