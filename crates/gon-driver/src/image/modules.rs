//! Kernel modules for an initramfs: the wanted ones with all they depend on, laid out for busybox's `modprobe`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::{ImageError, at};

/// The one kernel in a tree of modules.
pub(super) fn kernel_version(modules: &Path) -> Result<String, ImageError> {
    let entries = std::fs::read_dir(modules).map_err(at(modules))?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        _ => Err(ImageError::Contents("not exactly one kernel".into())),
    }
}

/// Adds the modules `wanted` of kernel `version` (from `modules`, a package's `lib/modules`) to an archive that has
/// the directory `lib/modules`.
pub(super) fn add(
    archive: &mut Archive,
    modules: &Path,
    version: &str,
    wanted: &[&str],
) -> Result<(), ImageError> {
    let dir = format!("lib/modules/{version}");
    archive.directory(&dir, 0o755);
    let mut dependencies = String::new();
    for module in load_order(&modules.join(version), wanted)? {
        archive.file(&format!("{dir}/{}.ko", module.name), 0o644, &module.contents);
        // Nearest first, as modprobe expects it.
        let needs = module.needs.iter().rev().map(|name| format!(" {name}.ko"));
        dependencies.push_str(&format!("{}.ko:{}\n", module.name, needs.collect::<String>()));
    }
    archive.file(&format!("{dir}/modules.dep"), 0o644, dependencies.as_bytes());
    Ok(())
}

/// A kernel module to be loaded.
struct Module {
    name: String,
    /// All it depends on, directly or not, in the order in which that is loaded.
    needs: Vec<String>,
    contents: Vec<u8>,
}

/// `wanted` and all they depend on, dependencies first. What is built into the kernel needs no loading.
fn load_order(dir: &Path, wanted: &[&str]) -> Result<Vec<Module>, ImageError> {
    let mut files = Vec::new();
    find_modules(&dir.join("kernel"), &mut files)?;
    let builtin = std::fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
    let builtin: BTreeSet<String> = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
    let mut order: Vec<Module> = Vec::new();
    for name in wanted {
        add_module(name, &files, &builtin, &mut order, 0)?;
    }
    Ok(order)
}

fn add_module(
    name: &str,
    files: &[PathBuf],
    builtin: &BTreeSet<String>,
    order: &mut Vec<Module>,
    depth: u32,
) -> Result<(), ImageError> {
    if builtin.contains(name) || order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = files.iter().find(|path| module_name(path).as_deref() == Some(name));
    let (Some(path), true) = (path, depth < 16) else {
        return Err(ImageError::Contents(format!("the kernel has no module {name}")));
    };
    let contents = std::fs::read(path).map_err(at(path))?;
    let mut needs: Vec<String> = Vec::new();
    for dependency in depends(&contents) {
        add_module(&dependency, files, builtin, order, depth + 1)?;
        let Some(module) = order.iter().find(|module| module.name == dependency) else { continue };
        for name in module.needs.iter().chain([&module.name]) {
            if !needs.contains(name) {
                needs.push(name.clone());
            }
        }
    }
    order.push(Module { name: name.to_owned(), needs, contents });
    Ok(())
}

/// A module's name as the kernel spells it: `virtio-rng.ko` is `virtio_rng`. Compressed modules are not looked for:
/// the kernels of [`SUITE`] have none.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

/// The modules that a module says it needs: `depends=a,b` among the texts in its `.modinfo` section.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return vec![] };
    let value = module[start + KEY.len()..].split(|b| *b == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn find_modules(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), ImageError> {
    for entry in std::fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let kind = entry.file_type().map_err(at(dir))?;
        if kind.is_dir() {
            find_modules(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_after_what_they_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel/drivers");
        std::fs::create_dir_all(&kernel).unwrap();
        let module = |name: &str, depends: &str| {
            std::fs::write(kernel.join(name), format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0"))
                .unwrap();
        };
        module("virtio-net.ko", "virtio,failover");
        module("virtio.ko", "virtio-ring");
        module("virtio-ring.ko", "");
        module("unused.ko", "");
        std::fs::write(dir.path().join("modules.builtin"), "kernel/net/failover.ko\n").unwrap();
        let order = load_order(dir.path(), &["virtio_net", "virtio"]).unwrap();
        let names: Vec<_> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_net"]);
        assert_eq!(order[2].needs, ["virtio_ring", "virtio"]);
        assert!(load_order(dir.path(), &["absent"]).is_err());
        module("a.ko", "b");
        module("b.ko", "a");
        assert!(load_order(dir.path(), &["a"]).is_err(), "a circle");
    }
}
