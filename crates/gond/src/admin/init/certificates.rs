//! Certificates of the first server: the site's authority, one for each of its services in that service's own
//! directory, and those of the servers we use, which are renewed from here (our own services renew theirs by
//! themselves).

use std::path::{Path, PathBuf};

use anyhow::Context;
use gon_control::join::issue_here;
use gon_driver::run::{Cmd, run};
use gon_store::Store;
use gon_tls::TlsDir;
use gon_types::Role;
use time::OffsetDateTime;

use super::brokers;
use super::files::{self, Owner};
use crate::admin::steps::Done;

/// Whose account has the authority's key: the service that signs.
const SIGNER: (&str, Role) = ("gon-compute", Role::InstanceManager);

/// Where everything of the site's services is.
#[must_use]
pub fn home(role: Role) -> PathBuf {
    let all = Path::new("/var/lib/gon");
    // The agents of a node share one, being all root.
    if Role::CONTROL.contains(&role) { all.join(role.as_str()) } else { all.to_owned() }
}

/// As whom a role runs.
#[must_use]
pub fn account(role: Role) -> &'static str {
    match role {
        Role::ApiServer => "gon-api",
        Role::NetworkController => "gon-network",
        Role::InstanceManager => "gon-compute",
        Role::Bus => "rabbitmq",
        Role::Cluster => "etcd",
        _ => "root",
    }
}

/// Where a role's certificate is.
#[must_use]
pub fn dir(role: Role) -> TlsDir {
    match role {
        Role::Bus | Role::Cluster => TlsDir::new(&brokers::tls_dir(role)),
        _ => TlsDir::new(&home(role).join("tls")),
    }
}

/// Where the authority is.
#[must_use]
pub fn signer() -> TlsDir {
    dir(SIGNER.1)
}

/// Makes the site's authority if there is none.
pub fn authority() -> anyhow::Result<Done> {
    let signer = signer();
    let there = signer.has_authority();
    files::directory(&home(SIGNER.1), Owner { user: SIGNER.0, mode: 0o700 })?;
    let sha256 = signer.authority_or_create().context("the authority")?.sha256();
    files::give(signer.path(), SIGNER.0)?;
    // For browsers and clients: not a secret, and not to be looked for in a directory that is closed.
    let bundle = signer.read(&signer.ca_certificates())?;
    files::put(Path::new("/var/lib/gon/ca.crt"), &bundle, files::PUBLIC)?;
    Ok(if there {
        Done::Already
    } else {
        Done::Said(format!("SHA-256 {}…", &sha256[..16.min(sha256.len())]))
    })
}

/// Gives roles of this server certificates, unless they have good ones. Whether any is new.
pub async fn issue(store: &Store, name: &str, hosts: &[String], roles: &[Role]) -> anyhow::Result<bool> {
    let signer = signer();
    let bundle = signer.read(&signer.ca_certificates())?;
    let mut any = false;
    for role in roles {
        let dir = dir(*role);
        let owner = account(*role);
        let now = OffsetDateTime::now_utc();
        let good =
            dir.facts(*role).ok().flatten().is_some_and(|f| f.renew_at() > now && f.identity.name() == name)
                && dir.read(&dir.ca_certificates()).is_ok_and(|text| text == bundle);
        if !good {
            if Role::CONTROL.contains(role) {
                files::directory(&home(*role), Owner { user: owner, mode: 0o700 })?;
            }
            dir.make()?;
            issue_here(store, &signer, *role, name, hosts)
                .await
                .with_context(|| format!("certificate of {role}"))?;
            if dir != signer {
                let (certificate, key) = signer.load(*role)?;
                dir.trust(&bundle)?;
                dir.install(*role, &key, &certificate)?;
                for made in [signer.key(*role), signer.certificate(*role)] {
                    files::remove(&made)?;
                }
            }
            any = true;
        }
        // Also what an earlier run, ended halfway, left as root's.
        files::give(dir.path(), owner)?;
    }
    publish_revocations()?;
    Ok(any)
}

/// Gives etcd the list of revoked certificates, as the instance manager keeps it; an empty one until there is one.
fn publish_revocations() -> anyhow::Result<()> {
    let (signer, cluster) = (signer(), dir(Role::Cluster));
    if !cluster.path().exists() {
        return Ok(());
    }
    let list = match signer.read(&signer.revocations()) {
        Ok(list) => list,
        Err(_) => signer.authority()?.revocation_list(&[], 0)?,
    };
    files::put(&cluster.revocations(), &list, Owner { user: account(Role::Cluster), mode: 0o644 })?;
    Ok(())
}

/// What the timer does: renews what is nobody else's to renew, and tells RabbitMQ (etcd looks by itself).
pub async fn renew(store: &Store, name: &str, hosts: &[String]) -> anyhow::Result<bool> {
    let any = issue(store, name, hosts, &[Role::Bus, Role::Cluster]).await?;
    if any {
        run(Cmd::new("rabbitmqctl").args(["eval", "ssl:clear_pem_cache()."]))
            .await
            .context("telling RabbitMQ of its new certificate")?;
    }
    Ok(any)
}
