//! An API server without a socket: requests go straight to its router.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use gon_bus::MemoryBus;
use gon_control::api::{ApiConfig, AppState, NoConsole, Tokens, router, watch_events};
use gon_control::relay::{self, Nudge};
use gon_control::status::Metrics;
use gon_store::nodes::{ImageFacts, NodeFacts};
use gon_testkit::TestDatabase;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;
use uuid::Uuid;

pub struct Api {
    pub database: TestDatabase,
    pub app: AppState,
    pub router: Router,
    /// The administrator of account `default`.
    pub admin: User,
    _stop: DropGuard,
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: Uuid,
    pub account: Uuid,
    pub token: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.body);
        self.body
    }
    /// Status and EC2's code of a problem, which must be complete.
    pub fn problem(&self) -> (u16, &str) {
        assert!(!self.status.is_success(), "{} {}", self.status, self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        let text = |key: &str| self.body[key].as_str().unwrap_or_else(|| panic!("no {key}: {}", self.body));
        assert_eq!(self.body["status"], self.status.as_u16());
        assert!(!text("detail").is_empty() && !text("title").is_empty());
        assert!(text("request_id").starts_with("req-") && text("request_id").len() == 21);
        assert_eq!(self.headers["x-request-id"], text("request_id"));
        (self.status.as_u16(), text("code"))
    }
    pub fn field(&self) -> Option<&str> {
        self.body["field"].as_str()
    }
    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

pub fn id(resource: &Value) -> &str {
    resource["id"].as_str().unwrap_or_else(|| panic!("no id: {resource}"))
}

impl Api {
    pub async fn new() -> Self {
        Self::with(ApiConfig::default()).await
    }

    pub async fn with(config: ApiConfig) -> Self {
        Self::over(gon_testkit::database().await, config).await
    }

    /// Over a database of the test's own choice.
    pub async fn over(database: TestDatabase, config: ApiConfig) -> Self {
        let mut api = Self::bare(database, config);
        api.ring();
        api.admin = api.user("default", "admin", "admin").await;
        api
    }

    /// With nothing beside it and nobody known: only requests use the database.
    pub fn bare(database: TestDatabase, config: ApiConfig) -> Self {
        let app = AppState::new(
            database.store.clone(),
            Nudge::new(),
            Tokens::ephemeral().unwrap(),
            Arc::new(NoConsole),
            config,
            Arc::new(Mutex::new(Registry::default())),
        );
        let router = router(app.clone());
        let admin = User { id: Uuid::nil(), account: Uuid::nil(), token: String::new() };
        Self { database, app, router, admin, _stop: CancellationToken::new().drop_guard() }
    }

    /// Begins to ring doorbells and to tell those who watch.
    fn ring(&mut self) {
        let bus = Arc::new(MemoryBus::new());
        let stop = CancellationToken::new();
        tokio::spawn(relay::run(
            self.database.store.clone(),
            Arc::clone(&bus) as _,
            self.app.nudge.clone(),
            Arc::new(Metrics::default()),
            stop.clone(),
        ));
        tokio::spawn(watch_events(self.app.clone(), Arc::clone(&bus) as _, stop.clone()));
        self._stop = stop.drop_guard();
    }

    /// With a node in zone `gon-1a`, two images and a pool of addresses.
    pub async fn furnished() -> Self {
        let api = Self::new().await;
        api.furnish("203.0.113.0/28").await;
        api
    }

    pub async fn furnish(&self, pool: &str) {
        let image = |name: &str, min_memory_mib, disk_gib| ImageFacts {
            name: name.to_owned(),
            digest: "a".repeat(64),
            kind: if disk_gib > 0 { "disk" } else { "initramfs" },
            description: String::new(),
            architecture: "x86_64".to_owned(),
            min_memory_mib,
            disk_gib,
        };
        let node = NodeFacts {
            name: "n1".to_owned(),
            availability_zone: "gon-1a".to_owned(),
            vcpus: 64,
            memory_mib: 65536,
            disk_gib: 1000,
            accelerator: "tcg".to_owned(),
            ovs_datapath: "netdev".to_owned(),
            versions: json!({ "gond": "0.1.0" }),
            images: vec![image("gon-linux", 128, 0), image("debian-12", 512, 2)],
            labels: json!({ "rack": "3" }),
            address: Some([192, 0, 2, 1].into()),
            boot_id: None,
            told: None,
        };
        gon_store::nodes::report(&self.database.store, None, &node, Uuid::now_v7()).await.unwrap();
        let mut tx = self.database.store.begin().await.unwrap();
        gon_store::placement::set_public_pool(&mut tx, pool.parse().unwrap()).await.unwrap();
        gon_store::commit(tx).await.unwrap();
    }

    /// A user with a token. The password is not real: nobody logs in with it.
    pub async fn user(&self, account: &str, name: &str, role: &'static str) -> User {
        let mut tx = self.database.store.begin().await.unwrap();
        let account = gon_store::accounts::ensure(&mut tx, Uuid::now_v7(), account).await.unwrap();
        let user = gon_store::users::NewUser {
            id: Uuid::now_v7(),
            account,
            username: name,
            email: &format!("{name}@example.org"),
            password_hash: "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            role,
        };
        assert!(gon_store::users::create(&mut tx, &user).await.unwrap());
        gon_store::commit(tx).await.unwrap();
        User { id: user.id, account, token: self.app.tokens.issue(user.id, 0).unwrap() }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
        };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn call(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |b| Body::from(b.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    pub async fn as_user(&self, user: &User, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.call(Some(&user.token), method, &format!("/api/v1{path}"), body, &[]).await
    }
    pub async fn get(&self, path: &str) -> Answer {
        self.as_user(&self.admin, Method::GET, path, None).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.as_user(&self.admin, Method::POST, path, Some(&body)).await
    }
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.as_user(&self.admin, Method::PUT, path, Some(&body)).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.as_user(&self.admin, Method::DELETE, path, None).await
    }

    pub async fn vpc(&self, cidr: &str) -> Value {
        self.post("/vpcs", json!({ "name": "v", "cidr_block": cidr })).await.ok()
    }
    pub async fn subnet(&self, vpc: &str, cidr: &str) -> Value {
        self.post(&format!("/vpcs/{vpc}/subnets"), json!({ "name": "s", "cidr_block": cidr })).await.ok()
    }
    pub async fn image(&self, name: &str) -> String {
        let images = self.get(&format!("/images?name={name}")).await.ok();
        id(&images["items"][0]).to_owned()
    }
    pub async fn launch(&self, subnet: &str, more: Value) -> Answer {
        let mut body = json!({
            "name": "i", "image_id": self.image("gon-linux").await, "instance_type": "g1.nano", "subnet_id": subnet,
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.post("/instances", body).await
    }

    /// Runs statements and returns nothing.
    pub async fn sql(&self, statements: &'static str) {
        gon_store::admin::script(&self.database.store, statements).await.unwrap();
    }

    /// One number out of the database.
    pub async fn count(&self, statement: &'static str) -> i64 {
        gon_store::admin::number(&self.database.store, statement).await.unwrap()
    }
}

impl Api {
    /// Does the instance manager's part of terminating.
    pub async fn finish_terminations(&self) {
        let mut tx = self.database.store.begin().await.unwrap();
        for instance in gon_store::placement::lock_finishable(&mut tx, 100).await.unwrap() {
            gon_store::placement::finish(&mut tx, instance).await.unwrap();
        }
        gon_store::commit(tx).await.unwrap();
    }

    /// Does the instance manager's and a node's part: places everything that waits, and says that it runs.
    pub async fn run_everything(&self) {
        self.sql(
            "update instances i set node_id = (select id from nodes limit 1), placement_epoch = placement_epoch + 1,
               generation = generation + 1, run_as_uid = 600000 + (select count(*) from instances j where j.id < i.id)
             where node_id is null and deleted_at is null;
             update network_interfaces n set node_id = (select id from nodes limit 1),
               port_no = 16 + (select count(*) from network_interfaces m where m.id < n.id)
             where node_id is null and deleted_at is null and instance_id is not null;
             update instances set state = 'running', observed_generation = generation where state = 'pending';
             update instances set state = 'stopped', observed_generation = generation where state = 'stopping';",
        )
        .await;
    }
}
