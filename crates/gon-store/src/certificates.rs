//! Every certificate that was signed, until it has expired: whose it is, and whether it is revoked. The schema revokes
//! those of a node that is removed.

use time::OffsetDateTime;

use crate::{Conn, Result, Store};

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub struct NewCertificate<'a> {
    /// Its number, 32 lower-case hexadecimal digits.
    pub serial: &'a str,
    /// The role it is for.
    pub role: &'a str,
    /// The server it is for.
    pub name: &'a str,
    /// Host names and addresses in it.
    pub hosts: &'a [String],
    /// Fingerprint of who signed it.
    pub authority_sha256: &'a str,
    /// Until when it is good.
    pub not_after: OffsetDateTime,
}

/// Records a certificate. Before that it is refused everywhere.
pub async fn record(conn: &mut Conn, certificate: &NewCertificate<'_>) -> Result<()> {
    sqlx::query(
        "insert into certificates (serial, role, name, hosts, authority_sha256, not_after)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(certificate.serial)
    .bind(certificate.role)
    .bind(certificate.name)
    .bind(certificate.hosts)
    .bind(certificate.authority_sha256)
    .bind(certificate.not_after)
    .execute(conn)
    .await?;
    Ok(())
}

/// A certificate as it stands.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Standing {
    /// The role it is for.
    pub role: String,
    /// The server it is for.
    pub name: String,
    /// Host names and addresses in it.
    pub hosts: Vec<String>,
    /// Whether it is not to be believed any more.
    pub revoked: bool,
    /// The node of that name, once it has reported and until it is removed.
    pub node: Option<uuid::Uuid>,
}

/// How a certificate stands; `None` if it was never recorded.
pub async fn standing(store: &Store, serial: &str) -> Result<Option<Standing>> {
    Ok(sqlx::query_as(
        "select c.role, c.name, c.hosts, c.revoked_at is not null as revoked, n.id as node
         from certificates c left join nodes n on n.name = c.name and n.removed_at is null
         where c.serial = $1",
    )
    .bind(serial)
    .fetch_optional(store.pool())
    .await?)
}

/// Waits for everybody else who is about to give out certificates for this name. Held until the transaction ends.
pub async fn lock_name(conn: &mut Conn, name: &str) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 4207))").bind(name).execute(conn).await?;
    Ok(())
}

/// Whether a server holds a good certificate with this name, as its own or as one of its hosts.
pub async fn is_name_held(conn: &mut Conn, name: &str) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select from certificates
           where (name = $1 or $1 = any (hosts)) and revoked_at is null and not_after > now())",
    )
    .bind(name)
    .fetch_one(conn)
    .await?)
}

/// Revokes every certificate of a server, for `reason`. From its commit on they are refused at every request. Returns
/// how many there were.
pub async fn revoke_name(conn: &mut Conn, name: &str, reason: &str) -> Result<u64> {
    let done = sqlx::query(
        "update certificates set revoked_at = now(), reason = $2 where name = $1 and revoked_at is null",
    )
    .bind(name)
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Revokes one certificate, for `reason`. `false`: there is none of this number, or it was revoked before.
pub async fn revoke_serial(conn: &mut Conn, serial: &str, reason: &str) -> Result<bool> {
    let done = sqlx::query(
        "update certificates set revoked_at = now(), reason = $2 where serial = $1 and revoked_at is null",
    )
    .bind(serial)
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Revoked certificates of one authority that have not expired, for its revocation list: number and since when.
pub async fn revoked(store: &Store, authority_sha256: &str) -> Result<Vec<(String, OffsetDateTime)>> {
    Ok(sqlx::query_as(
        "select serial, revoked_at from certificates
         where revoked_at is not null and not_after > now() and authority_sha256 = $1 order by serial",
    )
    .bind(authority_sha256)
    .fetch_all(store.pool())
    .await?)
}

/// Servers and roles that hold a good certificate of another authority and none of this one: before they have one, the
/// other authority is not to be retired.
pub async fn without_authority(store: &Store, authority_sha256: &str) -> Result<Vec<(String, String)>> {
    Ok(sqlx::query_as(
        "select name, role from certificates where revoked_at is null and not_after > now()
         group by name, role having not bool_or(authority_sha256 = $1) order by name, role",
    )
    .bind(authority_sha256)
    .fetch_all(store.pool())
    .await?)
}
