//! Processes: what a child gets, what it does not, and that none is left behind or mistaken for another.

use std::time::{Duration, Instant};

use gon_driver::run::{Cmd, Pid, RunAs, RunError, run, spawn_detached};

#[tokio::test]
async fn a_command_gets_its_arguments_its_input_and_nothing_else() {
    let out = run(Cmd::new("env")).await.unwrap().text();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0], "LC_ALL=C");
    assert!(lines[1].starts_with("PATH=/"));

    let input = vec![b'x'; 1 << 20];
    let out = run(Cmd::new("cat").stdin(input.clone())).await.unwrap();
    assert_eq!(out.stdout, input);

    let out = run(Cmd::new("printf").args(["%s|", "$(id)", "; ls", "a b"])).await.unwrap();
    assert_eq!(out.text(), "$(id)|; ls|a b|");

    // A descriptor of ours without close-on-exec stays ours.
    let leak = nix::unistd::dup(std::fs::File::open("/etc/hostname").unwrap()).unwrap();
    let out = run(Cmd::new("ls").arg("/proc/self/fd")).await.unwrap().text();
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let mut cmd = Cmd::new("cat");
    let number = cmd.pass_fd(leak);
    let out = run(cmd.arg(format!("/proc/self/fd/{number}"))).await.unwrap();
    assert_eq!(out.stdout, std::fs::read("/etc/hostname").unwrap());
}

#[tokio::test]
async fn failure_says_which_program_and_why() {
    let error = run(Cmd::new("sh").args(["-c", "echo out; echo no >&2; exit 3"])).await.unwrap_err();
    assert_eq!(error.code(), Some(3));
    assert!(!error.is_transient());
    assert_eq!(error.to_string(), "sh failed (exit status: 3): no");
    let error = run(Cmd::new("gon-no-such-program")).await.unwrap_err();
    assert!(matches!(error, RunError::Spawn { .. }), "{error}");
    // A child that does not read its input is not our failure.
    run(Cmd::new("true").stdin(vec![0; 1 << 20])).await.unwrap();
}

#[tokio::test]
async fn a_deadline_kills_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
    let start = Instant::now();
    let error =
        run(Cmd::new("sh").args(["-c", &script]).deadline(Duration::from_millis(500))).await.unwrap_err();
    assert!(matches!(error, RunError::Timeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
    let sleeper: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    for _ in 0..100 {
        if Pid::of(sleeper).is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the grandchild outlived the deadline");
}

#[tokio::test]
async fn another_identity_is_whole() {
    let nobody = RunAs { groups: vec![1234], ..RunAs::named("nobody").unwrap() };
    let out = run(Cmd::new("cat").arg("/proc/self/status").run_as(nobody.clone()).no_new_privs())
        .await
        .unwrap()
        .text();
    let field = |name: &str| {
        let line = out.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), vec![nobody.uid.to_string(); 4]);
    assert_eq!(field("Gid:"), vec![nobody.gid.to_string(); 4]);
    assert_eq!(field("Groups:"), ["1234"]);
    assert_eq!(field("CapEff:"), ["0000000000000000"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert!(RunAs::named("gon-no-such-user").is_err());
}

#[tokio::test]
async fn a_detached_process_is_nobodys_child_and_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let pid = spawn_detached(Cmd::new("sh").args(["-c", "echo hello; exec sleep 1000"]), &log).unwrap();
    assert!(pid.is_alive());
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_ne!(fields[1], std::process::id().to_string(), "it is not our child");
    let session = fields[3].to_owned();
    assert_ne!(session, nix::unistd::getsid(None).unwrap().to_string(), "it has its own session");
    for _ in 0..100 {
        if std::fs::read_to_string(&log).unwrap() == "hello\n" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "hello\n");

    let other = Pid { start_time: pid.start_time + 1, ..pid };
    assert!(!other.is_alive(), "the same number, but not the same process");
    assert!(other.kill().await.unwrap(), "gone already");
    assert!(pid.is_alive(), "and the real one was not hit");

    let back: Pid = serde_json::from_str(&serde_json::to_string(&pid).unwrap()).unwrap();
    assert!(!back.wait_gone(Duration::from_millis(50)).await);
    assert!(back.stop(Duration::from_secs(5)).await.unwrap());
    assert!(!pid.is_alive());

    let error = spawn_detached(Cmd::new("/gon/no/such/program"), &log).unwrap_err();
    assert!(matches!(error, RunError::Spawn { .. }), "{error}");
}
