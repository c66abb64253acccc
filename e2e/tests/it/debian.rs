//! Debian 12 as a machine of the cloud: systemd, OpenSSH, cloud-init with the EC2 data source.

use std::time::Duration;

use anyhow::ensure;
use e2e::Cloud;
use e2e::say;
use e2e::tell;
use e2e::topology::{Launch, Network, launch};
use e2e::world::World;

#[test]
fn debian_boots_and_cloud_init_takes_the_key() {
    e2e::binaries::images("debian-12").unwrap();
    tell("debian", |world: &World| {
        let api = world.api();
        let network = Network::build(api, "debian", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let groups = [network.group.clone()];
        let what = Launch {
            groups: &groups,
            image: "debian-12",
            instance_type: "g1.micro",
            user_data: Some("#!/bin/sh\necho cloud-init-ran >/root/e2e\n"),
            ..Launch::tiny("debian", &network.subnet)
        };
        let instance = launch(world, &what)?.becomes(api, "running", Duration::from_secs(60))?;
        let mut shell = instance.shell_as(world, "admin", Duration::from_secs(300))?;
        ensure!(shell.run("cat /etc/debian_version")?.starts_with("12."), "not Debian 12");
        let name = format!("ip-{}", instance.private_ip.to_string().replace('.', "-"));
        let hostname = shell.run("hostname -s")?;
        ensure!(hostname == name, "the host name: {hostname}");
        ensure!(shell.run("cat /run/cloud-init/cloud-id")? == "aws", "cloud-init does not see EC2");
        shell.run_for(
            "cloud-init status --wait >/dev/null; sudo grep cloud-init-ran /root/e2e",
            Duration::from_secs(60),
        )?;
        let root = shell.run("df --output=size -BM / | tail -n 1")?;
        say!("debian-12 is up; its root has {}", root.trim());
        Ok(())
    });
}
