use super::*;

#[test]
fn a_service_is_what_it_depends_on() {
    let health = Health::new("api-server", "control-1");
    assert_eq!(health.verdict(), Verdict::Ready);
    let database = health.depends("postgresql", Need::Must);
    let bus = health.depends("rabbitmq", Need::Helps);
    assert_eq!(health.verdict(), Verdict::Unready, "nobody has looked");
    database.up_with("15.18");
    assert_eq!(health.verdict(), Verdict::Degraded);
    bus.up();
    assert_eq!(health.verdict(), Verdict::Ready);
    assert_eq!(health.summary(), "ready");

    bus.down("connection refused");
    assert_eq!(health.verdict(), Verdict::Degraded);
    assert_eq!(health.summary(), "degraded; rabbitmq: connection refused");
    let document = health.document();
    let since = document["dependencies"]["rabbitmq"]["since"].clone();
    time::OffsetDateTime::parse(since.as_str().unwrap(), &Rfc3339).unwrap();
    assert_eq!(document["dependencies"]["rabbitmq"]["why"], "connection refused");
    assert_eq!(document["dependencies"]["rabbitmq"]["required"], false);
    assert_eq!(document["dependencies"]["postgresql"]["status"], "up");
    assert_eq!(document["dependencies"]["postgresql"]["note"], "15.18");
    assert_eq!((&document["service"], &document["node"]), (&"api-server".into(), &"control-1".into()));

    database.down("no answer within 2 s");
    assert_eq!(health.verdict(), Verdict::Unready);
    database.up();
    bus.up();
    health.stopping();
    assert_eq!(health.verdict(), Verdict::Unready, "whoever ends takes no more work");
}

#[test]
fn another_reason_is_not_another_outage() {
    let health = Health::new("x", "n");
    let probe = health.depends("etcd", Need::Helps);
    probe.down("one");
    let since = health.lock().dependencies["etcd"].since;
    std::thread::sleep(std::time::Duration::from_millis(5));
    probe.down("another");
    let now = health.lock().dependencies["etcd"].clone();
    assert_eq!((now.since, now.condition), (since, Condition::Down("another".to_owned())));
    probe.up();
    assert!(health.lock().dependencies["etcd"].since > since);
}

/// A real listener and a real request: what stands on the pages of every service.
#[tokio::test]
async fn the_three_pages() {
    let health = Health::new("storage-agent", "worker-1");
    let store = health.depends("images", Need::Must);
    let registry = Arc::new(Mutex::new(prometheus_client::registry::Registry::default()));
    registry.lock().unwrap().register_collector(Box::new(metrics::Samples(|| {
        vec![
            metrics::Sample { name: "gon_images", help: "Images", counter: false, value: 2.0 },
            metrics::Sample { name: "gon_looks_total", help: "Looks", counter: true, value: 7.0 },
        ]
    })));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router(Ops::new(health.clone(), registry))).into_future());
    let get = async |path: &str| crate::testing::get(address, path).await;

    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    let (status, body) = get("/readyz").await;
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &document["status"]), (503, &"unready".into()));
    assert_eq!(document["dependencies"]["images"]["status"], "unknown");
    store.up();
    let (status, body) = get("/readyz").await;
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &document["status"]), (200, &"ready".into()));

    let (status, text) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "gon_images 2.0",
        "gon_looks_total 7.0",
        "gon_ready 1.0",
        "gon_dependency_up{dependency=\"images\"} 1",
        "# TYPE process_cpu_seconds counter",
    ] {
        assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
    }
    let build = format!(
        "gon_build_info{{version=\"{}\",service=\"storage-agent\",node=\"worker-1\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.contains(&build), "{text}");
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes ") > 1e6);
    assert!(value("process_open_fds ") > 3.0);
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(get("/").await.0, 404);
}
