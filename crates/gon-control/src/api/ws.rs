//! `/api/v1/ws`: the client says who it is, then hears what changes in its account until its token runs out.
//!
//! Client: `{"type":"auth","token":"…"}` within ten seconds. Server: `{"type":"ready"}`, then
//! `{"type":"event","seq":…,"resource":…,"id":…,"item":…}`. What happened before `ready` is not told: read it. A client
//! that is too slow is cut off and reads everything again.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::auth::authenticate_token;
use super::error::ApiError;
use super::route::RequestId;
use super::state::AppState;
use crate::service::{Kind, Refusal};

/// How long a client may take to say who it is.
const AUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to see whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// The largest message a client has any reason to send.
const LARGEST: usize = 8 << 10;
/// The token is not good, or no longer (a private code, RFC 6455 §7.4.2).
const UNAUTHENTICATED: u16 = 4401;
/// Try again later.
const TRY_AGAIN: u16 = 1013;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum ClientMessage {
    Auth { token: String },
}

/// Opens the socket, for our own pages and for programs that send no origin.
pub async fn open(
    State(app): State<AppState>,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let refuse = |refusal: Refusal| ApiError::new(refusal, request.0.to_string()).into_response();
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => return refuse(Refusal::new(Kind::Invalid, "InvalidRequest", "this is a WebSocket")),
    };
    if !is_same_origin(&headers, &app.config.allowed_origins) {
        return refuse(
            Refusal::new(Kind::Denied, "UnauthorizedOperation", "pages of other sites may not listen")
                .field("Origin"),
        );
    }
    upgrade.max_message_size(LARGEST).max_frame_size(LARGEST).on_upgrade(move |socket| serve(app, socket))
}

/// A browser says which page opens a socket; one of another site would act with our user's hands (OSSA-2015-005).
fn is_same_origin(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|a| a == origin) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let of_origin = origin.split_once("://").map(|(_, rest)| rest);
    host.is_some() && host == of_origin
}

async fn serve(app: AppState, mut socket: WebSocket) {
    let Ok(_place) = app.sockets.try_acquire() else {
        close(&mut socket, TRY_AGAIN, "too many sockets").await;
        return;
    };
    app.metrics.sockets.inc();
    listen(&app, &mut socket).await;
    app.metrics.sockets.dec();
}

async fn listen(app: &AppState, socket: &mut WebSocket) {
    let token = match tokio::time::timeout(AUTH_TIMEOUT, first_text(socket)).await {
        Ok(Some(text)) => serde_json::from_str::<ClientMessage>(&text).ok(),
        _ => None,
    };
    let signed_in = match token {
        Some(ClientMessage::Auth { token }) => authenticate_token(app, &token).await.ok(),
        None => None,
    };
    let Some((user, expires)) = signed_in else {
        let text = r#"{"type":"error","code":"AuthFailure","detail":"the first message must be auth with a good token"}"#;
        let _ = socket.send(Message::Text(text.into())).await;
        close(socket, UNAUTHENTICATED, "sign in").await;
        return;
    };
    // Listen before saying so: nothing that happens after "ready" is missed.
    let mut events = app.events.subscribe();
    if socket.send(Message::Text(r#"{"type":"ready"}"#.into())).await.is_err() {
        return;
    }
    let left = expires.saturating_sub(jsonwebtoken::get_current_timestamp());
    let end = tokio::time::sleep_until(Instant::now() + Duration::from_secs(left));
    tokio::pin!(end);
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    let mut answered = true;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(message) if message.account == user.account_id => {
                    if socket.send(Message::Text((&*message.text).into())).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return close(socket, TRY_AGAIN, "too slow").await,
                Err(RecvError::Closed) => return close(socket, TRY_AGAIN, "shutting down").await,
            },
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => answered = true,
            },
            _ = ping.tick() => {
                if !std::mem::take(&mut answered) || socket.send(Message::Ping(Default::default())).await.is_err() {
                    return;
                }
            }
            () = &mut end => return close(socket, UNAUTHENTICATED, "the token has run out").await,
        }
    }
}

async fn first_text(socket: &mut WebSocket) -> Option<String> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    }
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_may_listen() {
        let headers = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "cloud.example:8080".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            headers
        };
        assert!(is_same_origin(&headers(None), &[]));
        assert!(is_same_origin(&headers(Some("http://cloud.example:8080")), &[]));
        for other in [
            "http://evil.example",
            "null",
            "",
            "http://cloud.example",
            "http://cloud.example:8080.evil.example",
        ] {
            assert!(!is_same_origin(&headers(Some(other)), &[]), "{other}");
        }
        assert!(is_same_origin(
            &headers(Some("http://localhost:5173")),
            &["http://localhost:5173".to_owned()]
        ));
    }
}
