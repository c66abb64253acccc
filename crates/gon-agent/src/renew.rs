//! Keeps a role's certificate and authorities fresh, for as long as the process runs.
//!
//! Assumes that the instance manager of the server with the authority's key can be reached now and then. Promises a new
//! key and certificate after two thirds of the old one's life, or as soon as another authority signs; that what is in
//! use is replaced only by something that works; and that no connection is cut for it.

use std::sync::Arc;
use std::time::Duration;

use gon_proto::{AuthoritiesAnswer, RenewAnswer, RenewRequest, paths};
use gon_tls::{SigningRequest, Tls, TlsError};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::link::{Link, LinkError, Transport, jitter};

/// How often the authorities are looked at, and whether it is time.
pub const LOOK: Duration = Duration::from_secs(15 * 60);
/// The pauses after a failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Why it could not be renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The instance manager.
    #[error("the instance manager did not renew it")]
    Link(#[from] LinkError),
    /// Its answer, or our files.
    #[error("the new certificate cannot be used")]
    Tls(#[from] TlsError),
}

/// Keeps `tls` fresh until `stop`. `transport` leads to the instance managers. `look`: [`LOOK`].
pub async fn run(tls: Tls, transport: Arc<dyn Transport>, look: Duration, stop: CancellationToken) {
    let link = Link::new(transport);
    let mut pause = RETRY.0;
    loop {
        let next = match once(&tls, &link).await {
            Ok(()) => {
                pause = RETRY.0;
                // Half of it at least; not all servers at once.
                look / 2 + jitter(look / 2)
            }
            Err(error) => {
                let left = tls.current().facts().not_after - OffsetDateTime::now_utc();
                tracing::warn!(
                    role = %tls.role(),
                    days_left = left.whole_days(),
                    error = &error as &dyn std::error::Error,
                    "the certificate could not be looked after"
                );
                let next = pause / 2 + jitter(pause / 2);
                pause = (pause * 2).min(RETRY.1);
                next.min(look)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// Takes over the site's authorities if they changed, and renews the certificate if it is time.
pub async fn once(tls: &Tls, link: &Link) -> Result<(), RenewError> {
    let answer: AuthoritiesAnswer = link.get(paths::AUTHORITIES).await?;
    trust(tls, &answer.ca_pem)?;
    let current = tls.current();
    if current.is_of_signing_authority() && OffsetDateTime::now_utc() < current.facts().renew_at() {
        return Ok(());
    }
    let request = SigningRequest::new()?;
    let ask = RenewRequest { format: gon_proto::FORMAT, request: request.request_pem };
    let answer: RenewAnswer = link.exchange(paths::CERTIFICATES, &ask).await?;
    gon_tls::check_pair(&answer.certificate, &request.key_pem, &current.facts().identity)?;
    trust(tls, &answer.ca_pem)?;
    tls.dir().install(tls.role(), &request.key_pem, &answer.certificate)?;
    tls.reload()?;
    let facts = tls.current().facts().clone();
    tracing::info!(identity = %facts.identity, serial = facts.serial, until = %facts.not_after, "certificate renewed");
    Ok(())
}

fn trust(tls: &Tls, bundle_pem: &str) -> Result<(), TlsError> {
    // Where the authority's key is, its files are where the answer comes from: never the other way round.
    if tls.dir().has_authority() {
        return Ok(());
    }
    if gon_tls::bundle_sha256(bundle_pem)? == tls.current().authorities() {
        return Ok(());
    }
    tls.dir().trust(bundle_pem)?;
    tls.reload()?;
    tracing::info!(role = %tls.role(), "the site's authorities were replaced");
    Ok(())
}
