//! What a guest is, and the QEMU command line that makes it so. Pure.
//!
//! Assumes that files and devices come as inherited descriptors ([`Handles`]) or at fixed places of QEMU's jail
//! ([`super::jail`]), so that no path of the host is in the command line. Promises the smallest device model that
//! boots (virtio-net, -blk, -rng and a serial port; no display, no USB, no option ROMs), no configuration file,
//! nothing probed (every block node names its driver), processors stopped until we say `cont`, and that QEMU stays,
//! paused, after the guest powered itself off: so that fact is not lost with an agent that was away.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use gon_types::MacAddr;
use serde_json::json;
use uuid::Uuid;

use super::Accelerator;
use super::probe::Capabilities;

/// Where the kernel and the initramfs are inside the jail.
pub(super) const KERNEL: &str = "/boot/kernel";
pub(super) const INITRD: &str = "/boot/initrd";
/// Bytes of console output that QEMU itself keeps for whoever reads next; a power of two. It bounds what a guest that
/// floods its console costs (row K10), and what is lost when nobody reads for a while.
pub const CONSOLE_RING: u32 = 256 << 10;
/// The console's name on the command line.
pub(super) const CONSOLE: &str = "console";

/// A virtual machine, as far as starting its QEMU is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its name in process lists: `[a-z0-9-]+`.
    pub name: String,
    /// Its identity; see [`ec2_uuid`].
    pub uuid: Uuid,
    /// Virtual processors.
    pub vcpus: u16,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// The machine model.
    pub machine: Machine,
    /// What it boots.
    pub boot: Boot,
    /// Interfaces in slot order.
    pub nics: Vec<Nic>,
    /// Disks in slot order.
    pub disks: Vec<Disk>,
    /// The user and group its QEMU runs as: nobody else's on this node.
    pub run_as_uid: u32,
}

/// Machine models we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Minimal: virtio over MMIO, no PCI, no firmware tables but ACPI. Boots a kernel directly.
    Microvm,
    /// A PC with PCI, SMBIOS and firmware.
    Q35,
}

/// What a guest boots: always a kernel that comes with its image, never a boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel file on the host: `vmlinux` with a PVH note. Readable for everybody.
    pub kernel: PathBuf,
    /// The initramfs on the host, likewise.
    pub initrd: PathBuf,
    /// The kernel's command line, complete (see `Manifest::kernel_cmdline`).
    pub cmdline: String,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its tap device on the host.
    pub device: String,
    /// The guest's address.
    pub mac: MacAddr,
    /// MTU offered to the guest.
    pub mtu: u16,
    /// Whether half-made checksums and large segments may leave the guest. Not with a userspace datapath, which does
    /// not finish them.
    pub offloads: bool,
}

/// A disk: an overlay of ours, over a base that is never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The qcow2 overlay on the host.
    pub overlay: PathBuf,
    /// The raw image below it, on the host.
    pub base: Option<PathBuf>,
}

/// The descriptors QEMU inherits, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handles {
    /// The listening socket of its monitor.
    pub monitor: RawFd,
    /// An open tap for each interface.
    pub nics: Vec<RawFd>,
    /// Overlay and base of each disk.
    pub disks: Vec<(RawFd, Option<RawFd>)>,
}

/// The machine identity of an instance, from its id: begins with `ec2`, which is how cloud-init knows where it is, and
/// ends with the digits a person sees in the instance's id. Chosen, never random: a random one looks like EC2's byte
/// order once in 256 times.
#[must_use]
pub fn ec2_uuid(instance: Uuid) -> Uuid {
    const KEEP: u128 = u128::MAX >> 12;
    Uuid::from_u128(0xec2 << 116 | instance.as_u128() & KEEP)
}

/// The argument vector, without the program.
#[must_use]
pub fn command_line(guest: &Guest, capabilities: &Capabilities, handles: &Handles) -> Vec<OsString> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| {
        args.push(option.to_owned());
        args.push(value);
    };
    for flag in ["-nodefaults", "-no-user-config", "-S"] {
        add(flag, String::new());
    }
    add("-display", "none".to_owned());
    add("-vga", "none".to_owned());
    add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned());
    add("-name", format!("guest={}", guest.name));
    add("-uuid", guest.uuid.to_string());
    // A guest that powers itself off leaves QEMU paused in state `shutdown`; a reboot happens in place.
    add("-action", "reboot=reset,shutdown=pause".to_owned());

    let common = "mem-merge=off,dump-guest-core=off";
    match guest.machine {
        Machine::Microvm => {
            add("-M", format!("microvm,acpi=on,pcie=off,{common}"));
            // virtio 1.x, as on PCI.
            add("-global", "virtio-mmio.force-legacy=false".to_owned());
        }
        Machine::Q35 => {
            add("-M", format!("q35,usb=off,sata=off,smbus=off,vmport=off,{common}"));
            let uuid = guest.uuid;
            add("-smbios", format!("type=1,manufacturer=Amazon EC2,product=gon,serial={uuid},uuid={uuid}"));
        }
    }
    match &capabilities.accelerator {
        Accelerator::Kvm { cpu } => {
            add("-accel", "kvm".to_owned());
            add("-cpu", cpu.clone());
        }
        Accelerator::Tcg => {
            add("-accel", "tcg,thread=multi".to_owned());
            add("-cpu", "max".to_owned());
        }
    }
    add("-smp", guest.vcpus.to_string());
    add("-m", guest.memory_mib.to_string());
    add("-kernel", KERNEL.to_owned());
    add("-initrd", INITRD.to_owned());
    add("-append", guest.boot.cmdline.clone());

    add("-chardev", format!("ringbuf,id={CONSOLE},size={CONSOLE_RING}"));
    add("-serial", format!("chardev:{CONSOLE}"));
    add("-chardev", format!("socket,id=monitor,fd={},server=on,wait=off", handles.monitor));
    add("-mon", "chardev=monitor,mode=control".to_owned());

    let bus = match guest.machine {
        Machine::Microvm => "device",
        Machine::Q35 => "pci",
    };
    for (slot, (disk, (overlay, base))) in guest.disks.iter().zip(&handles.disks).enumerate() {
        add("-add-fd", format!("fd={overlay},set={}", overlay_set(slot)));
        let base = disk.base.as_ref().and(*base);
        if let Some(fd) = base {
            add("-add-fd", format!("fd={fd},set={}", base_set(slot)));
        }
        for node in block_nodes(slot, base.is_some()) {
            add("-blockdev", node.to_string());
        }
        // A full disk of the host pauses the guest, it does not corrupt it; any other error is the guest's to handle.
        add(
            "-device",
            format!("virtio-blk-{bus},id=disk{slot},drive=disk{slot},werror=enospc,rerror=report"),
        );
    }
    for (slot, (nic, fd)) in guest.nics.iter().zip(&handles.nics).enumerate() {
        add("-netdev", format!("tap,id=net{slot},fd={fd},vhost=off"));
        let mut device =
            format!("virtio-net-{bus},id=nic{slot},netdev=net{slot},mac={},host_mtu={}", nic.mac, nic.mtu);
        if guest.machine == Machine::Q35 {
            // No boot ROM: nothing boots from the network.
            device.push_str(",romfile=");
        }
        if !nic.offloads {
            for feature in OFFLOADS {
                device.push(',');
                device.push_str(feature);
                device.push_str("=off");
            }
        }
        add("-device", device);
    }
    add("-object", "rng-builtin,id=rng0".to_owned());
    add("-device", format!("virtio-rng-{bus},rng=rng0"));

    // A flag has no value; nothing we pass has an empty one.
    args.into_iter().filter(|arg| !arg.is_empty()).map(OsString::from).collect()
}

/// What a guest must not hand to a datapath that takes packets as they are.
const OFFLOADS: [&str; 12] = [
    "csum",
    "gso",
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "guest_ufo",
    "guest_ecn",
    "host_tso4",
    "host_tso6",
    "host_ufo",
    "host_ecn",
    "ctrl_guest_offloads",
];

fn overlay_set(slot: usize) -> usize {
    2 * slot + 1
}
fn base_set(slot: usize) -> usize {
    2 * slot + 2
}

/// The nodes of one disk, from the bottom: each with its driver, none with a name to be probed or followed.
fn block_nodes(slot: usize, has_base: bool) -> Vec<serde_json::Value> {
    let mut nodes = Vec::new();
    if has_base {
        nodes.push(json!({
            "driver": "file", "node-name": format!("base{slot}-file"),
            "filename": format!("/dev/fdset/{}", base_set(slot)), "read-only": true, "auto-read-only": false,
        }));
        nodes.push(json!({
            "driver": "raw", "node-name": format!("base{slot}"), "file": format!("base{slot}-file"),
            "read-only": true, "auto-read-only": false,
        }));
    }
    nodes.push(json!({
        "driver": "file", "node-name": format!("disk{slot}-file"),
        "filename": format!("/dev/fdset/{}", overlay_set(slot)), "auto-read-only": false, "discard": "unmap",
    }));
    let backing = if has_base { json!(format!("base{slot}")) } else { serde_json::Value::Null };
    nodes.push(json!({
        "driver": "qcow2", "node-name": format!("disk{slot}"), "file": format!("disk{slot}-file"),
        "backing": backing, "auto-read-only": false, "discard": "unmap",
    }));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(accelerator: Accelerator) -> Capabilities {
        Capabilities {
            program: "/usr/bin/qemu-system-x86_64".into(),
            version: (7, 2, 22),
            microvm: true,
            accelerator,
        }
    }

    fn golden(guest: &Guest, accelerator: Accelerator, handles: &Handles) -> String {
        let line = command_line(guest, &capabilities(accelerator), handles);
        let mut text = String::new();
        for arg in line {
            let arg = arg.into_string().unwrap();
            // One option and its value a line.
            text.push_str(if arg.starts_with('-') { "\n" } else { " " });
            text.push_str(&arg);
        }
        text.trim_start().to_owned()
    }

    fn guest() -> Guest {
        Guest {
            name: "i-f8123456789abcdef".to_owned(),
            uuid: ec2_uuid(Uuid::parse_str("018f0e2a-7b1c-7def-8123-456789abcdef").unwrap()),
            vcpus: 2,
            memory_mib: 512,
            machine: Machine::Microvm,
            boot: Boot {
                kernel: "/images/gon-linux/vmlinux".into(),
                initrd: "/images/gon-linux/initrd".into(),
                cmdline: "console=ttyS0 panic=1 quiet".to_owned(),
            },
            nics: vec![Nic {
                device: "tap0".to_owned(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                mtu: 1450,
                offloads: false,
            }],
            disks: vec![],
            run_as_uid: 70_001,
        }
    }

    #[test]
    fn the_machine_identity_says_ec2_and_whose_it_is() {
        assert_eq!(guest().uuid.to_string(), "ec2f0e2a-7b1c-7def-8123-456789abcdef");
    }

    #[test]
    fn a_microvm_from_memory_under_tcg() {
        let handles = Handles { monitor: 10, nics: vec![11], disks: vec![] };
        assert_eq!(golden(&guest(), Accelerator::Tcg, &handles), MICROVM);
    }

    const MICROVM: &str = "\
-nodefaults
-no-user-config
-S
-display none
-vga none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-name guest=i-f8123456789abcdef
-uuid ec2f0e2a-7b1c-7def-8123-456789abcdef
-action reboot=reset,shutdown=pause
-M microvm,acpi=on,pcie=off,mem-merge=off,dump-guest-core=off
-global virtio-mmio.force-legacy=false
-accel tcg,thread=multi
-cpu max
-smp 2
-m 512
-kernel /boot/kernel
-initrd /boot/initrd
-append console=ttyS0 panic=1 quiet
-chardev ringbuf,id=console,size=262144
-serial chardev:console
-chardev socket,id=monitor,fd=10,server=on,wait=off
-mon chardev=monitor,mode=control
-netdev tap,id=net0,fd=11,vhost=off
-device virtio-net-device,id=nic0,netdev=net0,mac=02:00:00:00:00:01,host_mtu=1450,csum=off,gso=off,\
guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_ecn=off,host_tso4=off,host_tso6=off,host_ufo=off,\
host_ecn=off,ctrl_guest_offloads=off
-object rng-builtin,id=rng0
-device virtio-rng-device,rng=rng0";

    #[test]
    fn a_pc_from_disk_under_kvm() {
        let mut guest = guest();
        guest.machine = Machine::Q35;
        guest.nics[0].offloads = true;
        guest.disks = vec![
            Disk { overlay: "/x/disk0.qcow2".into(), base: Some("/x/image/disk".into()) },
            Disk { overlay: "/x/disk1.qcow2".into(), base: None },
        ];
        let handles = Handles { monitor: 10, nics: vec![11], disks: vec![(12, Some(13)), (14, None)] };
        let accelerator = Accelerator::Kvm { cpu: "host".to_owned() };
        assert_eq!(golden(&guest, accelerator, &handles), Q35);
    }

    const Q35: &str = "\
-nodefaults
-no-user-config
-S
-display none
-vga none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-name guest=i-f8123456789abcdef
-uuid ec2f0e2a-7b1c-7def-8123-456789abcdef
-action reboot=reset,shutdown=pause
-M q35,usb=off,sata=off,smbus=off,vmport=off,mem-merge=off,dump-guest-core=off
-smbios type=1,manufacturer=Amazon EC2,product=gon,serial=ec2f0e2a-7b1c-7def-8123-456789abcdef,uuid=ec2f0e2a-7b1c-7def-8123-456789abcdef
-accel kvm
-cpu host
-smp 2
-m 512
-kernel /boot/kernel
-initrd /boot/initrd
-append console=ttyS0 panic=1 quiet
-chardev ringbuf,id=console,size=262144
-serial chardev:console
-chardev socket,id=monitor,fd=10,server=on,wait=off
-mon chardev=monitor,mode=control
-add-fd fd=12,set=1
-add-fd fd=13,set=2
-blockdev {\"auto-read-only\":false,\"driver\":\"file\",\"filename\":\"/dev/fdset/2\",\"node-name\":\"base0-file\",\"read-only\":true}
-blockdev {\"auto-read-only\":false,\"driver\":\"raw\",\"file\":\"base0-file\",\"node-name\":\"base0\",\"read-only\":true}
-blockdev {\"auto-read-only\":false,\"discard\":\"unmap\",\"driver\":\"file\",\"filename\":\"/dev/fdset/1\",\"node-name\":\"disk0-file\"}
-blockdev {\"auto-read-only\":false,\"backing\":\"base0\",\"discard\":\"unmap\",\"driver\":\"qcow2\",\"file\":\"disk0-file\",\"node-name\":\"disk0\"}
-device virtio-blk-pci,id=disk0,drive=disk0,werror=enospc,rerror=report
-add-fd fd=14,set=3
-blockdev {\"auto-read-only\":false,\"discard\":\"unmap\",\"driver\":\"file\",\"filename\":\"/dev/fdset/3\",\"node-name\":\"disk1-file\"}
-blockdev {\"auto-read-only\":false,\"backing\":null,\"discard\":\"unmap\",\"driver\":\"qcow2\",\"file\":\"disk1-file\",\"node-name\":\"disk1\"}
-device virtio-blk-pci,id=disk1,drive=disk1,werror=enospc,rerror=report
-netdev tap,id=net0,fd=11,vhost=off
-device virtio-net-pci,id=nic0,netdev=net0,mac=02:00:00:00:00:01,host_mtu=1450,romfile=
-object rng-builtin,id=rng0
-device virtio-rng-pci,rng=rng0";
}
