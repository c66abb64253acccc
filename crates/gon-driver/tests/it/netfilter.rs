//! The exception from Docker's packet filter, with a chain as Docker makes it.

use gon_driver::netfilter::{let_through_docker, remove_from_docker};
use gon_driver::run::{Cmd, run};

use crate::namespace::in_namespace;

async fn iptables(args: &[&str]) -> String {
    run(Cmd::new("iptables").args(["--wait", "5"]).args(args)).await.unwrap().text()
}

async fn chain() -> Vec<String> {
    iptables(&["-S", "DOCKER-USER"]).await.lines().map(|line| line.trim().to_owned()).collect()
}

const OURS: [&str; 4] = [
    "-A DOCKER-USER -i gon-ext -o br-+ -j RETURN",
    "-A DOCKER-USER -i gon-ext -o docker0 -j RETURN",
    "-A DOCKER-USER -o gon-ext -j ACCEPT",
    "-A DOCKER-USER -i gon-ext -j ACCEPT",
];

#[test]
fn guests_pass_dockers_filter_and_do_not_reach_containers() {
    in_namespace(async || {
        // Without Docker there is nothing to do, and nothing fails.
        let_through_docker("gon-ext").await.unwrap();
        remove_from_docker("gon-ext").await.unwrap();

        iptables(&["-P", "FORWARD", "DROP"]).await;
        iptables(&["-N", "DOCKER-USER"]).await;
        iptables(&["-A", "FORWARD", "-j", "DOCKER-USER"]).await;
        iptables(&["-A", "DOCKER-USER", "-s", "192.0.2.1/32", "-j", "DROP"]).await;
        iptables(&["-A", "DOCKER-USER", "-j", "RETURN"]).await;
        let theirs = chain().await;
        for _ in 0..3 {
            let_through_docker("gon-ext").await.unwrap();
            assert_eq!(
                chain().await,
                [&["-N DOCKER-USER"], &OURS[..], &theirs.iter().map(String::as_str).collect::<Vec<_>>()[1..]]
                    .concat()
            );
        }
        // Somebody took one away: all are there again, in their order.
        iptables(&["-D", "DOCKER-USER", "2"]).await;
        let_through_docker("gon-ext").await.unwrap();
        assert_eq!(chain().await[1..5], OURS);
        remove_from_docker("gon-ext").await.unwrap();
        assert_eq!(chain().await, theirs);
    });
}
