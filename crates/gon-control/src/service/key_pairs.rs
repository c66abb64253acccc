//! Key pairs: generated here and forgotten, or imported. Only the public half is kept.

use aws_lc_rs::rand::SecureRandom;
use gon_api::key_pairs::{CreateKeyPair, KeyPair, ListKeyPairs};
use gon_api::page::{NoQuery, Page};
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::key_pairs::{self, KeyPairRow};
use gon_store::reference::Ref;
use gon_types::id::KeyPairId;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey};

use super::error::{Refusal, Result};
use super::{Cx, parse};
use crate::api::{Json, One};

type Kind = gon_types::id::KeyPair;

fn show(row: KeyPairRow) -> KeyPair {
    KeyPair {
        id: KeyPairId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        key_type: row.key_type,
        fingerprint: row.fingerprint,
        public_key: row.public_key,
        private_key: None,
        created_at: row.created_at,
    }
}

/// A new Ed25519 pair: its public half, and the private half as OpenSSH writes it.
fn generate(comment: &str) -> Result<(PublicKey, String)> {
    let failed = || Refusal::internal("a key could not be generated");
    let mut seed = [0; 32];
    aws_lc_rs::rand::SystemRandom::new().fill(&mut seed).map_err(|_| failed())?;
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let private = PrivateKey::new(pair, comment).map_err(|_| failed())?;
    let text = private.to_openssh(LineEnding::LF).map_err(|_| failed())?;
    Ok((private.public_key().clone(), text.to_string()))
}

/// The public key of a line of `authorized_keys`: RSA of 2048 bits or more, or Ed25519, as EC2 has it.
fn import(text: &str) -> Result<PublicKey> {
    let bad = |why: &str| Refusal::of_field("InvalidKey.Format", "public_key", why.to_owned());
    if text.len() > 16 * 1024 {
        return Err(bad("must be at most 16 KiB"));
    }
    let key = PublicKey::from_openssh(text.trim())
        .map_err(|_| bad("must be an OpenSSH public key: ssh-ed25519 AAAA… or ssh-rsa AAAA…"))?;
    match key.key_data() {
        KeyData::Ed25519(_) => Ok(key),
        KeyData::Rsa(rsa) => {
            let bits = rsa.n.as_positive_bytes().map_or(0, |n| n.len() * 8);
            if (2048..=16_384).contains(&bits) {
                Ok(key)
            } else {
                Err(bad("RSA keys must have 2048 to 16384 bits"))
            }
        }
        _ => Err(bad("must be ssh-ed25519 or ssh-rsa")),
    }
}

/// Generates or imports a key pair.
pub async fn create(cx: Cx, (): (), _: NoQuery, Json(body): Json<CreateKeyPair>) -> Result<KeyPair> {
    let name = parse::name("name", &body.name)?;
    let (mut public, private) = match &body.public_key {
        Some(text) => (import(text)?, None),
        None => {
            let (public, private) = generate(&name)?;
            (public, Some(private))
        }
    };
    // The name is what tells keys apart in authorized_keys; whatever comment came along says nothing to us.
    public.set_comment(name.as_str());
    let key_type = match public.algorithm() {
        Algorithm::Rsa { .. } => "rsa",
        _ => "ed25519",
    };
    let fingerprint = public.fingerprint(HashAlg::Sha256).to_string();
    let line = public.to_openssh().map_err(|_| Refusal::internal("a public key could not be written"))?;
    let id = KeyPairId::new();
    let mut tx = cx.begin().await?;
    let created_at =
        key_pairs::create(&mut tx, cx.account(), id.uuid(), &name, key_type, &fingerprint, &line).await?;
    let pair = KeyPair {
        id: id.to_string(),
        uuid: id.uuid(),
        name: name.clone(),
        key_type: key_type.to_owned(),
        fingerprint: fingerprint.clone(),
        public_key: line,
        private_key: private,
        created_at,
    };
    let entry = Entry::new("CreateKeyPair", id.uuid())
        .detail(serde_json::json!({ "name": name, "fingerprint": fingerprint, "imported": body.public_key.is_some() }))
        .event(Watched::KeyPair, id.uuid(), None, Some("available"));
    cx.commit(tx, entry, &pair).await?;
    Ok(pair)
}

/// Lists key pairs.
pub async fn list(cx: Cx, (): (), query: ListKeyPairs, (): ()) -> Result<Page<KeyPair>> {
    let window = cx.window("key-pairs", query.window())?;
    let mut conn = cx.conn().await?;
    let rows = key_pairs::list(&mut conn, cx.account(), query.name.as_deref(), window).await?;
    Ok(cx.page("key-pairs", window, rows, |r| r.id, show))
}

/// Describes a key pair.
pub async fn get(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<KeyPair> {
    let mut conn = cx.conn().await?;
    Ok(show(Cx::found(key_pairs::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?))
}

/// Deletes a key pair.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let gone = Cx::found(key_pairs::delete(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let entry = Entry::new("DeleteKeyPair", gone).event(Watched::KeyPair, gone, Some("available"), None);
    cx.commit(tx, entry, &()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_generated_pair_belongs_together() {
        let (public, private) = generate("my key").unwrap();
        let read = PrivateKey::from_openssh(&private).unwrap();
        assert_eq!(read.public_key().key_data(), public.key_data());
        assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert_ne!(generate("my key").unwrap().1, private);
        assert!(import(&public.to_openssh().unwrap()).is_ok());
    }

    #[test]
    fn only_good_keys_are_imported() {
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            "ssh-dss AAAAB3NzaC1kc3M=",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "x y z",
            // An RSA key of 1024 bits.
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDB6Kz6Kp5nF1s5E0w4n6vVbO1kB9mZ9qZr0m1cX5i4Z2w2fRr8a9c3mXW3zqkQwQ7Qy1m0z0m7C0s7V1m9c8H4Q2l5d6f7g8h9i0j1k2l3m4n5o6p7q8r9s0t1u2v3w4x5y6z7A8B9C0D1E2F3G4H5I6J7K8L9M0N1O2P3Q==",
        ] {
            assert!(import(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_key_panics(text in ".{0,300}", body in "[A-Za-z0-9+/=]{0,200}") {
            let _ = import(&text);
            let _ = import(&format!("ssh-rsa {body}"));
            let _ = import(&format!("ssh-ed25519 {body}"));
        }
    }
}
