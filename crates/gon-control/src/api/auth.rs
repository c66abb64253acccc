//! Signing in, staying signed in, signing out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SecureRandom;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gon_api::auth::{LoginRequest, Me, MeAccount, MeUser, RefreshRequest, TokenResponse};
use gon_api::page::NoQuery;
use gon_core::authz::Action;
use gon_store::sessions::{self, Presented};
use gon_store::users::UserRow;
use gon_types::id::{AccountId, UserId};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::extract::Json;
use super::password;
use super::route::{Routes, Spec, Verb, Visitor};
use super::state::AppState;
use super::tokens::LIFETIME;
use crate::documents::lock;
use crate::service::{Cx, Kind, Refusal, Result};

/// Days for which a refresh token is good.
const REFRESH_DAYS: i32 = 30;
/// A login waits so long for its turn at the hash.
const LOGIN_WAIT: Duration = Duration::from_secs(5);
/// Seconds until a bucket has room for one more login.
const REFILL: f64 = 6.0;
/// Longer user names and passwords than these are nobody's.
const LONGEST: usize = 1024;

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    let spec = |operation, method, path, status, summary| Spec { operation, method, path, status, summary };
    routes.public(spec("login", Verb::Post, "/auth/login", 200, "Sign in"), login);
    routes.public(spec("refresh", Verb::Post, "/auth/refresh", 200, "Exchange a refresh token"), refresh);
    routes.public(spec("logout", Verb::Post, "/auth/logout", 204, "Give a refresh token up"), logout);
    routes.add(Action::DescribeSelf, spec("me", Verb::Get, "/auth/me", 200, "Who is signed in"), me);
}

/// Attempts of a user name from an address.
type Attempts = HashMap<(String, Option<IpAddr>), (f64, Instant)>;

/// Keeps the hash from becoming an outage, and guessing from being worth while.
#[derive(Debug)]
pub struct LoginGate {
    turns: Semaphore,
    burst: f64,
    buckets: Mutex<Attempts>,
}

impl LoginGate {
    /// With so many attempts at once per user name and address.
    #[must_use]
    pub fn new(burst: u32) -> Self {
        Self { turns: Semaphore::new(2), burst: f64::from(burst), buckets: Mutex::default() }
    }

    /// Takes one attempt, or says after how many seconds there is one.
    fn take(&self, username: &str, address: Option<IpAddr>, now: Instant) -> std::result::Result<(), u32> {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= 10_000 {
            // Full ones say nothing.
            buckets
                .retain(|_, (left, at)| *left + now.duration_since(*at).as_secs_f64() / REFILL < self.burst);
            if buckets.len() >= 10_000 {
                return Err(60);
            }
        }
        let bucket = buckets.entry((username.to_lowercase(), address)).or_insert((self.burst, now));
        let left = (bucket.0 + now.duration_since(bucket.1).as_secs_f64() / REFILL).min(self.burst);
        *bucket = (left, now);
        if left < 1.0 {
            return Err(((1.0 - left) * REFILL).ceil() as u32);
        }
        bucket.0 -= 1.0;
        Ok(())
    }

    /// A login that succeeds gives its attempt back.
    fn give_back(&self, username: &str, address: Option<IpAddr>) {
        if let Some((left, _)) = lock(&self.buckets).get_mut(&(username.to_lowercase(), address)) {
            *left = (*left + 1.0).min(self.burst);
        }
    }
}

fn no_entry(detail: &'static str) -> Refusal {
    Refusal::new(Kind::Unauthenticated, "AuthFailure", detail)
}

/// Who a request is from.
pub async fn authenticate(app: &AppState, headers: &HeaderMap) -> Result<Arc<UserRow>> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| no_entry("sign in first: send an access token as Authorization: Bearer …"))?;
    Ok(authenticate_token(app, token).await?.0)
}

/// Who a token is of, and until when it is good (seconds since 1970).
pub async fn authenticate_token(app: &AppState, token: &str) -> Result<(Arc<UserRow>, u64)> {
    let bad = || no_entry("the access token is not good, or no longer: refresh it or sign in again");
    let claims = app.tokens.check(token).ok_or_else(bad)?;
    let user = app.user(claims.sub).await?.ok_or_else(bad)?;
    if user.disabled || claims.epoch != user.token_epoch {
        return Err(bad());
    }
    Ok((user, claims.exp))
}

fn random_token() -> Result<(String, [u8; 32])> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Refusal::internal("no random bytes"))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash_token(&token);
    Ok((token, hash))
}

fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn tokens(app: &AppState, user: &UserRow, refresh_token: String) -> Result<TokenResponse> {
    let access_token = app
        .tokens
        .issue(user.id, user.token_epoch)
        .map_err(|_| Refusal::internal("a token could not be signed"))?;
    Ok(TokenResponse { access_token, token_type: "Bearer".to_owned(), expires_in: LIFETIME, refresh_token })
}

async fn login(visitor: Visitor, Json(request): Json<LoginRequest>) -> Result<TokenResponse> {
    let Visitor { app, address } = visitor;
    if request.username.len() > LONGEST || request.password.len() > LONGEST {
        return Err(Refusal::invalid("username", "user name and password are at most 1024 bytes"));
    }
    app.logins.take(&request.username, address, Instant::now()).map_err(|seconds| {
        let mut refusal =
            Refusal::new(Kind::TooMany, "RequestLimitExceeded", "too many logins: try again later");
        refusal.retry_after = Some(seconds);
        refusal
    })?;
    let turn = gon_store::aside(tokio::time::timeout(LOGIN_WAIT, app.logins.turns.acquire())).await;
    let Ok(Ok(turn)) = turn else {
        let mut refusal =
            Refusal::new(Kind::Unavailable, "RequestLimitExceeded", "too many logins at once: try again");
        refusal.retry_after = Some(2);
        return Err(refusal);
    };
    let found = {
        let mut conn = app.store.conn().await?;
        // PostgreSQL takes no NUL in text; nobody's name has one.
        if request.username.contains('\0') {
            None
        } else {
            gon_store::users::by_name(&mut conn, &request.username).await?
        }
    };
    // Somebody who does not exist costs the same time and is answered alike.
    let hash = found.as_ref().map_or(password::NOBODY.to_owned(), |user| user.password_hash.clone());
    let password = request.password;
    let good = tokio::task::spawn_blocking(move || password::verify(&password, &hash));
    let good =
        gon_store::aside(good).await.map_err(|_| Refusal::internal("a password could not be checked"))?;
    drop(turn);
    let Some(user) = found.filter(|user| good && !user.disabled) else {
        app.metrics.failed_logins.inc();
        return Err(no_entry("wrong user name or password"));
    };
    app.logins.give_back(&request.username, address);
    let (refresh_token, hash) = random_token()?;
    let mut conn = app.store.conn().await?;
    sessions::issue(&mut conn, &hash, user.id, Uuid::now_v7(), REFRESH_DAYS).await?;
    tokens(&app, &user, refresh_token)
}

async fn refresh(visitor: Visitor, Json(request): Json<RefreshRequest>) -> Result<TokenResponse> {
    let app = visitor.app;
    let ended = || no_entry("the refresh token is not good, or no longer: sign in again");
    let (next, next_hash) = random_token()?;
    let mut tx = app.store.begin().await?;
    let user = match sessions::present(&mut tx, &hash_token(&request.refresh_token)).await? {
        Presented::Taken { user, family } => {
            sessions::issue(&mut tx, &next_hash, user, family, REFRESH_DAYS).await?;
            user
        }
        Presented::Reused { user, .. } => {
            // Whoever has the copy may have an access token as well.
            gon_store::users::revoke_tokens(&mut tx, user).await?;
            gon_store::commit(tx).await?;
            app.forget_user(user);
            tracing::warn!(%user, "a refresh token was used twice: its family is revoked");
            return Err(ended());
        }
        Presented::Unknown => return Err(ended()),
    };
    let Some(user) = gon_store::users::by_id(&mut tx, user).await?.filter(|user| !user.disabled) else {
        return Err(ended());
    };
    gon_store::commit(tx).await?;
    tokens(&app, &user, next)
}

async fn logout(visitor: Visitor, Json(request): Json<RefreshRequest>) -> Result<()> {
    let mut conn = visitor.app.store.conn().await?;
    // A token that is not known is as good as given up.
    if let Some((family, _)) = sessions::family_of(&mut conn, &hash_token(&request.refresh_token)).await? {
        sessions::revoke(&mut conn, family).await?;
    }
    Ok(())
}

async fn me(cx: Cx, (): (), _: NoQuery, (): ()) -> Result<Me> {
    let user = cx.app.user(cx.actor.user).await?.ok_or_else(|| no_entry("the user is gone"))?;
    Ok(Me {
        user: MeUser {
            id: UserId::from_uuid(user.id).to_string(),
            username: user.username.clone(),
            role: user.role.clone(),
        },
        account: MeAccount {
            id: AccountId::from_uuid(user.account_id).to_string(),
            name: user.account_name.clone(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_run_out_and_come_back() {
        let gate = LoginGate::new(3);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(gate.take("Ann", None, now), Ok(()));
        }
        assert_eq!(gate.take("ann", None, now), Err(6));
        assert_eq!(gate.take("bob", None, now), Ok(()));
        assert_eq!(gate.take("ann", Some([127, 0, 0, 1].into()), now), Ok(()));
        assert_eq!(gate.take("ann", None, now + Duration::from_secs(7)), Ok(()));
        gate.give_back("ann", None);
        assert_eq!(gate.take("ann", None, now + Duration::from_secs(7)), Ok(()));
    }
}
