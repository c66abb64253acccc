//! A service whose loop hangs is not vouched for, so that the service manager starts it again.

use std::process::Command;
use std::time::{Duration, Instant};

use gon_tls::Role;

use crate::site::{PATIENCE, tell, until};

/// The planted bug needs no change of the program: the network agent reads who its node is from a file, and a pipe that
/// nobody writes to holds it there for ever. Its twin, which has no such file yet, goes on looking for it.
#[test]
fn the_watchdog_is_not_fed_while_a_loop_hangs() {
    tell(|site| {
        let (_, _) = site.certify();
        let data = site.data();
        std::fs::create_dir(data.join("compute")).unwrap();
        let pipe = data.join("compute/node.json");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let twin = site.dir.join("twin");
        std::fs::create_dir(&twin).unwrap();
        let tls = data.join("tls").to_string_lossy().into_owned();
        let settings = |port: &'static str| {
            [("GON_TLS_DIR", tls.clone()), ("GON_ROLES_NETWORK_AGENT", port.to_owned())]
                .into_iter()
                .chain([("WATCHDOG_USEC", "3000000".to_owned())])
                .collect::<Vec<_>>()
        };
        let start = |data: &std::path::Path, name: &str, port| {
            let settings = settings(port);
            let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
            site.start_apart(Role::NetworkAgent, data, name, &settings)
        };
        let hung = start(&data, "hung", "127.0.0.1:9091");
        let sound = start(&twin, "sound", "127.0.0.1:9191");
        for process in [&hung, &sound] {
            until("it is there", PATIENCE, || match process.told("READY=1").as_slice() {
                [] => Err(process.tail()),
                _ => Ok(()),
            });
        }
        // A patience of the loop (12 s), then silence: three times as long as the pause between two words before.
        let silent = until("nobody vouches for it", Duration::from_secs(40), || {
            let last = *hung.told("WATCHDOG=1").last().ok_or("not once")?;
            if last.elapsed() > Duration::from_secs(3) {
                Ok(last)
            } else {
                Err("it is vouched for".to_owned())
            }
        });
        let lived = silent - hung.started;
        assert!(lived > Duration::from_secs(8) && lived < Duration::from_secs(30), "{lived:?}");
        let vouched = sound.told("WATCHDOG=1");
        assert!(vouched.last().unwrap().elapsed() < Duration::from_secs(3), "its twin lives");
        assert!(vouched.len() > 8, "{vouched:?}");

        // It still answers, and says what is the matter.
        let (status, _, body) = site.get_at(9091, "/readyz").unwrap();
        let said: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &said["dependencies"]["agent loop"]["status"]), (503, &"down".into()), "{said}");
        assert_eq!(site.get_at(9091, "/healthz").unwrap().0, 200);
        let (_, _, body) = site.get_at(9191, "/readyz").unwrap();
        let said: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(said["dependencies"]["agent loop"]["status"], "up", "{said}");

        // Even so it ends when it is asked to.
        let begin = Instant::now();
        let (status, took, _) = hung.end();
        assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
        drop(sound);
        println!("hung: silent after {lived:?}, ended in {:?}", begin.elapsed());
    });
}
