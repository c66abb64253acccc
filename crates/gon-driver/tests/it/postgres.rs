//! The private PostgreSQL, for real: made, reached by us and nobody else, killed, adopted, stopped.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use gon_driver::postgres::{Config, Postgres, Stop};
use gon_driver::run::{Cmd, RunAs, RunError, run};

use crate::namespace::KillAtEnd;

fn psql(server: &Postgres, sql: &str) -> Cmd {
    Cmd::new("psql")
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "gon", "-d", "gon", "-h"])
        .arg(server.socket_dir())
        .args(["-c", sql])
}

async fn ask(server: &Postgres, sql: &str) -> String {
    run(psql(server, sql)).await.unwrap().text().trim().to_owned()
}

#[tokio::test]
async fn a_cluster_is_made_reached_by_us_alone_and_survives_its_murder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = Config::for_tests(&dir.path().join("postgres"));
    let server = Postgres::adopt_or_start(&config).await.unwrap();
    let mut end = KillAtEnd(vec![server.pid()]);
    assert!(!server.was_adopted());
    assert_eq!(ask(&server, "select current_user || current_setting('data_checksums')").await, "gonon");
    assert_eq!(ask(&server, "select current_setting('listen_addresses')").await, "");
    ask(&server, "create table t (x int); insert into t values (7)").await;

    // Nobody else comes in: not even the user the server runs as, and not from another database user's name.
    let other = RunAs::named("postgres").unwrap();
    let error = run(psql(&server, "select 1").run_as(other)).await.unwrap_err();
    assert!(
        matches!(&error, RunError::Exit { stderr, .. } if stderr.contains("Peer authentication failed")),
        "{error}"
    );
    let error = run(psql(&server, "select 1").run_as(RunAs::named("nobody").unwrap())).await.unwrap_err();
    assert!(
        matches!(&error, RunError::Exit { stderr, .. } if stderr.contains("Permission denied")),
        "{error}"
    );

    // Running already: adopted, not started again.
    let again = Postgres::adopt_or_start(&config).await.unwrap();
    assert!(again.was_adopted());
    assert_eq!(again.pid(), server.pid());

    // Killed: the orphans of its last moment do not keep the next one from starting.
    assert!(server.pid().kill().await.unwrap());
    let next = Postgres::adopt_or_start(&config).await.unwrap();
    end.0.push(next.pid());
    assert_ne!(next.pid(), server.pid());
    assert_eq!(ask(&next, "select x from t").await, "7");

    next.stop(Stop::Fast).await.unwrap();
    assert!(!next.pid().is_alive());
    assert!(Postgres::find(&config.dir).is_none());
    next.stop(Stop::Fast).await.unwrap();
}

#[tokio::test]
async fn a_directory_where_the_server_cannot_go_is_shown_to_it() {
    let top = tempfile::tempdir().unwrap();
    let closed = top.path().join("closed");
    std::fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let dir = closed.join(".gon/postgres");
    let server = Postgres::adopt_or_start(&Config::for_tests(&dir)).await.unwrap();
    let _end = KillAtEnd(vec![server.pid()]);
    assert_eq!(ask(&server, "select 1").await, "1");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(top.path().to_str().unwrap()), "nothing is mounted outside the server");
    assert_eq!(std::fs::metadata(&closed).unwrap().permissions().mode() & 0o777, 0o700);
    let again = Postgres::adopt_or_start(&Config::for_tests(&dir)).await.unwrap();
    assert!(again.was_adopted());
    server.stop(Stop::Fast).await.unwrap();
}

#[tokio::test]
async fn a_long_path_and_a_half_made_cluster_are_coped_with() {
    let top = tempfile::tempdir().unwrap();
    std::fs::set_permissions(top.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let dir = top.path().join("x".repeat(120)).join("postgres");
    std::fs::create_dir_all(dir.join("data.new/base")).unwrap();
    std::fs::write(dir.join("data.new/PG_VERSION"), "15\n").unwrap();
    let server = Postgres::adopt_or_start(&Config::for_tests(&dir)).await.unwrap();
    assert!(server.socket_dir().starts_with("/run"), "{:?}", server.socket_dir());
    let _end = KillAtEnd(vec![server.pid()]);
    assert_eq!(ask(&server, "select 1").await, "1");
    server.stop(Stop::Fast).await.unwrap();
    assert!(!server.pid().is_alive());
    assert!(!server.socket_dir().exists());
}
