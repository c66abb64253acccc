//! Signing in, staying signed in, signing out.

use axum::http::Method;
use gon_control::api::{ApiConfig, Claims, Tokens};
use gon_control::service::ensure_admin;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Api};

const PASSWORD: &str = "correct horse battery";

async fn open(api: &Api, path: &str, body: Value) -> Answer {
    api.call(None, Method::POST, &format!("/api/v1/auth/{path}"), Some(&body), &[]).await
}

async fn with_ann() -> Api {
    let api = Api::new().await;
    assert!(ensure_admin(&api.database.store, "ann", PASSWORD).await.unwrap());
    api
}

async fn login(api: &Api) -> Value {
    open(api, "login", json!({ "username": "ann", "password": PASSWORD })).await.ok()
}

#[tokio::test]
async fn the_first_administrator_is_made_once() {
    let api = with_ann().await;
    assert!(!ensure_admin(&api.database.store, "ann", "another password").await.unwrap());
    login(&api).await;
    for bad in ["", "Ann", "a b", "-a", &"a".repeat(51)] {
        assert!(ensure_admin(&api.database.store, bad, PASSWORD).await.is_err(), "{bad}");
    }
    assert!(ensure_admin(&api.database.store, "bob", "short").await.is_err());
}

#[tokio::test]
async fn who_signs_in_is_who_me_says() {
    let api = with_ann().await;
    let tokens = login(&api).await;
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(900)));
    let me = api.call(tokens["access_token"].as_str(), Method::GET, "/api/v1/auth/me", None, &[]).await.ok();
    assert_eq!(me["user"]["username"], "ann");
    assert_eq!(me["user"]["role"], "admin");
    assert_eq!(me["account"]["name"], "default");
    // Names are not told apart by case, passwords are.
    open(&api, "login", json!({ "username": "ANN", "password": PASSWORD })).await.ok();
    let wrong = open(&api, "login", json!({ "username": "ann", "password": PASSWORD.to_uppercase() })).await;
    assert_eq!(wrong.problem(), (401, "AuthFailure"));
}

#[tokio::test]
async fn nobody_learns_which_users_exist() {
    let api = with_ann().await;
    let mut details = Vec::new();
    for (username, password) in
        [("ann", "wrong"), ("nobody", "wrong"), ("nobody\0", "x"), ("' or 1=1 --", "x"), ("", "")]
    {
        let begin = std::time::Instant::now();
        let answer = open(&api, "login", json!({ "username": username, "password": password })).await;
        assert_eq!(answer.problem(), (401, "AuthFailure"), "{username:?}");
        details.push(answer.body["detail"].clone());
        // The hash is what takes the time; a look-up alone would take less than a millisecond.
        assert!(begin.elapsed().as_millis() >= 4, "{username:?} was answered at once");
    }
    details.dedup();
    assert_eq!(details.len(), 1);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_copy_ends_the_family() {
    let api = with_ann().await;
    let first = login(&api).await;
    let other = login(&api).await;
    let refresh = |token: Value| open(&api, "refresh", json!({ "refresh_token": token }));
    let second = refresh(first["refresh_token"].clone()).await.ok();
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    // Somebody has a copy of the first.
    assert_eq!(refresh(first["refresh_token"].clone()).await.problem(), (401, "AuthFailure"));
    // So the second, of the same family, is void; and so are access tokens.
    assert_eq!(refresh(second["refresh_token"].clone()).await.problem(), (401, "AuthFailure"));
    let me = api.call(second["access_token"].as_str(), Method::GET, "/api/v1/auth/me", None, &[]).await;
    assert_eq!(me.problem(), (401, "AuthFailure"));
    // Another family goes on.
    let third = refresh(other["refresh_token"].clone()).await.ok();
    api.call(third["access_token"].as_str(), Method::GET, "/api/v1/auth/me", None, &[]).await.ok();
    for bad in ["", "x", &"A".repeat(43), "\0"] {
        assert_eq!(refresh(json!(bad)).await.problem(), (401, "AuthFailure"), "{bad:?}");
    }
}

#[tokio::test]
async fn one_of_two_who_present_a_token_at_once_is_too_late() {
    let api = with_ann().await;
    let first = login(&api).await;
    let body = json!({ "refresh_token": first["refresh_token"] });
    let (a, b) = tokio::join!(open(&api, "refresh", body.clone()), open(&api, "refresh", body));
    let good = [&a, &b].iter().filter(|answer| answer.status.is_success()).count();
    assert_eq!(good, 1, "{} {}", a.body, b.body);
}

#[tokio::test]
async fn logging_out_ends_the_family() {
    let api = with_ann().await;
    let tokens = login(&api).await;
    let body = json!({ "refresh_token": tokens["refresh_token"] });
    assert_eq!(open(&api, "logout", body.clone()).await.status, 204);
    assert_eq!(open(&api, "refresh", body.clone()).await.problem(), (401, "AuthFailure"));
    // Twice is once, and a token nobody knows is as good as given up.
    assert_eq!(open(&api, "logout", body).await.status, 204);
    assert_eq!(open(&api, "logout", json!({ "refresh_token": "x" })).await.status, 204);
}

#[tokio::test]
async fn tokens_end_with_the_user_and_with_his_epoch() {
    let api = Api::new().await;
    let me = || api.get("/auth/me");
    me().await.ok();
    api.sql("update users set token_epoch = 1").await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(me().await.problem(), (401, "AuthFailure"));
    let token = api.app.tokens.issue(api.admin.id, 1).unwrap();
    api.call(Some(&token), Method::GET, "/api/v1/auth/me", None, &[]).await.ok();
    api.sql("update users set disabled_at = now()").await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let answer = api.call(Some(&token), Method::GET, "/api/v1/auth/me", None, &[]).await;
    assert_eq!(answer.problem(), (401, "AuthFailure"));
}

#[tokio::test]
async fn no_other_token_opens_the_door() {
    let api = Api::new().await;
    let now = jsonwebtoken::get_current_timestamp();
    let good = Claims {
        iss: "gon".to_owned(),
        aud: "gon-api".to_owned(),
        sub: api.admin.id,
        epoch: 0,
        iat: now,
        nbf: now,
        exp: now + 900,
        jti: Uuid::now_v7(),
    };
    let tokens = &api.app.tokens;
    let foreign = Tokens::ephemeral().unwrap();
    let mut bad = vec![
        foreign.sign(&good).unwrap(),
        tokens.sign(&Claims { exp: now - 60, iat: now - 900, nbf: now - 900, ..good.clone() }).unwrap(),
        tokens.sign(&Claims { nbf: now + 600, ..good.clone() }).unwrap(),
        tokens.sign(&Claims { aud: "else".to_owned(), ..good.clone() }).unwrap(),
        tokens.sign(&Claims { iss: "else".to_owned(), ..good.clone() }).unwrap(),
        tokens.sign(&Claims { sub: Uuid::now_v7(), ..good.clone() }).unwrap(),
        tokens.sign(&Claims { epoch: 7, ..good.clone() }).unwrap(),
        tokens.sign(&Claims { exp: now + 1_000_000, ..good.clone() }).unwrap(),
        "null".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(10_000),
    ];
    let token = tokens.sign(&good).unwrap();
    bad.push(token[..token.len() - 4].to_owned());
    bad.push(format!("{token}x"));
    for token in bad {
        let answer = api.call(Some(&token), Method::GET, "/api/v1/vpcs", None, &[]).await;
        assert_eq!(answer.problem(), (401, "AuthFailure"), "{token}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    for header in ["", "Bearer", "Bearer ", "Basic YTpi", "bearer\tx"] {
        let answer = api.call(None, Method::GET, "/api/v1/vpcs", None, &[("authorization", header)]).await;
        assert_eq!(answer.problem(), (401, "AuthFailure"), "{header}");
    }
    let answer = api
        .call(None, Method::GET, "/api/v1/vpcs", None, &[("authorization", &format!("bearer  {token}"))])
        .await;
    answer.ok();
}

#[tokio::test]
async fn guessing_is_not_worth_while() {
    let api = Api::with(ApiConfig { login_burst: 3, ..ApiConfig::default() }).await;
    ensure_admin(&api.database.store, "ann", PASSWORD).await.unwrap();
    let wrong = json!({ "username": "ann", "password": "wrong" });
    for _ in 0..3 {
        assert_eq!(open(&api, "login", wrong.clone()).await.problem(), (401, "AuthFailure"));
    }
    let answer = open(&api, "login", wrong).await;
    assert_eq!(answer.problem(), (429, "RequestLimitExceeded"));
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    // Also with the right password; others are not concerned.
    let right = json!({ "username": "ann", "password": PASSWORD });
    assert_eq!(open(&api, "login", right).await.problem(), (429, "RequestLimitExceeded"));
    let other = json!({ "username": "bob", "password": "wrong" });
    assert_eq!(open(&api, "login", other).await.problem(), (401, "AuthFailure"));
}

#[tokio::test]
async fn secrets_are_kept_as_hashes() {
    let api = with_ann().await;
    let tokens = login(&api).await;
    let key = api
        .call(
            tokens["access_token"].as_str(),
            Method::POST,
            "/api/v1/key-pairs",
            Some(&json!({ "name": "k" })),
            &[("idempotency-key", "k1")],
        )
        .await
        .ok();
    let everything = gon_store::admin::json(
        &api.database.store,
        "select to_jsonb(array_agg(t)) from (select to_jsonb(u) as r from users u union all select to_jsonb(x) from refresh_tokens x
         union all select to_jsonb(k) from key_pairs k union all select to_jsonb(i) from idempotency_keys i
         union all select to_jsonb(a) from audit_log a) t",
    )
    .await
    .unwrap();
    let text = everything[0].to_string();
    let body = key["private_key"].as_str().unwrap().lines().nth(1).unwrap();
    for secret in
        [PASSWORD, tokens["refresh_token"].as_str().unwrap(), tokens["access_token"].as_str().unwrap(), body]
    {
        assert!(!text.contains(secret));
    }
}
