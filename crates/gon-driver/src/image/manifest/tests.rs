use super::*;

fn sample(dir: &Path) -> serde_json::Value {
    std::fs::write(dir.join("vmlinux"), b"kernel").unwrap();
    std::fs::write(dir.join("initrd"), b"initrd").unwrap();
    std::fs::write(dir.join("disk.raw"), vec![0; 1024]).unwrap();
    let digest = "0".repeat(64);
    serde_json::json!({
        "schema": 1, "name": "debian-12", "description": "Debian", "kind": "disk", "arch": "x86_64", "machine": "q35",
        "kernel": {"file": "vmlinux", "bytes": 6, "sha256": digest},
        "initrd": {"file": "initrd", "bytes": 6, "sha256": digest},
        "disk": {"file": "disk.raw", "sha256": digest, "virtual_bytes": 1024},
        "cmdline": "console=ttyS0", "kernel_version": "6.1.0", "min_memory_mib": 256,
        "recipe": digest, "built_at": "2026-01-02T03:04:05Z",
    })
}

fn load(dir: &Path, value: &serde_json::Value) -> Result<Manifest, ImageError> {
    std::fs::write(dir.join(MANIFEST_FILE), value.to_string()).unwrap();
    Manifest::load(dir)
}

#[test]
fn a_manifest_survives_the_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let value = sample(dir.path());
    let manifest = load(dir.path(), &value).unwrap();
    assert_eq!(serde_json::to_value(&manifest).unwrap(), value);
    assert_eq!(manifest.disk_path(dir.path()), Some(dir.path().join("disk.raw")));
}

#[test]
fn what_contradicts_the_rules_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let good = sample(dir.path());
    let cases = [
        ("/schema", serde_json::json!(2)),
        ("/name", serde_json::json!("../x")),
        ("/name", serde_json::json!("")),
        ("/kind", serde_json::json!("initramfs")),
        ("/kind", serde_json::json!("cloud")),
        ("/disk", serde_json::Value::Null),
        ("/kernel/file", serde_json::json!("/etc/shadow")),
        ("/kernel/file", serde_json::json!("..")),
        ("/kernel/file", serde_json::json!("manifest.json")),
        ("/kernel/file", serde_json::json!("initrd")),
        ("/kernel/file", serde_json::json!("absent")),
        ("/kernel/bytes", serde_json::json!(7)),
        ("/kernel/sha256", serde_json::json!("abc")),
        ("/disk/virtual_bytes", serde_json::json!(1000)),
        ("/cmdline", serde_json::json!("a\nb")),
        ("/min_memory_mib", serde_json::json!(0)),
        ("/recipe", serde_json::json!("")),
        ("/built_at", serde_json::json!("yesterday")),
    ];
    for (pointer, value) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value.clone();
        assert!(load(dir.path(), &bad).is_err(), "{pointer} = {value}");
    }
    let mut unknown = good.clone();
    unknown["surprise"] = serde_json::json!(1);
    assert!(load(dir.path(), &unknown).is_err());
    // A link in the image's place does not lead out of its directory.
    std::fs::remove_file(dir.path().join("initrd")).unwrap();
    std::os::unix::fs::symlink("vmlinux", dir.path().join("initrd")).unwrap();
    assert!(load(dir.path(), &good).is_err());
}

#[tokio::test]
async fn changed_files_are_found_by_their_digest() {
    let dir = tempfile::tempdir().unwrap();
    let mut value = sample(dir.path());
    let manifest = load(dir.path(), &value).unwrap();
    assert!(manifest.verify(dir.path()).await.is_err());
    for (key, file) in [("kernel", "vmlinux"), ("initrd", "initrd"), ("disk", "disk.raw")] {
        value[key]["sha256"] = sha256_of(&dir.path().join(file)).await.unwrap().into();
    }
    load(dir.path(), &value).unwrap().verify(dir.path()).await.unwrap();
}

#[test]
fn only_an_emulated_microvm_is_told_the_clock_rate() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = load(dir.path(), &sample(dir.path())).unwrap();
    assert_eq!(manifest.kernel_cmdline(true), "console=ttyS0");
    manifest.machine = Machine::Microvm;
    assert_eq!(manifest.kernel_cmdline(false), "console=ttyS0");
    let emulated = manifest.kernel_cmdline(true);
    assert!(emulated.starts_with("console=ttyS0 tsc_early_khz="), "{emulated}");
}
