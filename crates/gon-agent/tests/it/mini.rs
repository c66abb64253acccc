//! The smallest guests: kernels of a few bytes that say a word on the serial port and then do one thing. They start as
//! fast as QEMU does, so what an agent does can be tried many times.

use std::path::Path;

use serde_json::json;

/// What the kernel does after its word.
#[derive(Clone, Copy)]
pub enum Then {
    /// Waits for ever, deaf to the power button.
    Halts,
    /// Writes to the serial port for ever.
    Floods,
    /// Powers itself off.
    PowersOff,
}

pub const DIGEST: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
pub const WORD: &str = "mini: up\n";

/// Writes an image with such a kernel into an image store.
pub fn write_image(images: &Path, name: &str, then: Then) {
    let dir = images.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let kernel = kernel(then);
    std::fs::write(dir.join("vmlinux"), &kernel).unwrap();
    std::fs::write(dir.join("initrd"), b"none").unwrap();
    let manifest = json!({
        "schema": 1, "name": name, "description": "For tests.", "kind": "initramfs", "arch": "x86_64",
        "machine": "microvm",
        "kernel": {"file": "vmlinux", "bytes": kernel.len(), "sha256": DIGEST},
        "initrd": {"file": "initrd", "bytes": 4, "sha256": DIGEST},
        "disk": null, "cmdline": "", "kernel_version": "0", "min_memory_mib": 32, "recipe": DIGEST,
        "built_at": "2026-01-01T00:00:00Z",
    });
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
}

/// An ELF file with a PVH entry note: QEMU jumps there in 32-bit protected mode, memory flat.
fn kernel(then: Then) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    const HEADERS: usize = 64 + 2 * 56;
    const NOTE: usize = 12 + 4 + 8;
    let mut code = vec![0xfa, 0x66, 0xba, 0xf8, 0x03]; // cli; mov dx, 0x3f8
    for b in WORD.bytes() {
        code.extend([0xb0, b, 0xee]); // mov al, b; out dx, al
    }
    match then {
        Then::Halts => {}
        Then::Floods => code.extend([0xb0, b'y', 0xee, 0xee, 0xee, 0xb0, b'\n', 0xee, 0xeb, 0xf6]),
        // Sleep type 5, enable, to the sleep register of the hardware-reduced ACPI device.
        Then::PowersOff => code.extend([0xc6, 0x05, 0x00, 0x02, 0xa0, 0xfe, 0x34]),
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    let entry = BASE + (HEADERS + NOTE) as u64;
    let size = (HEADERS + NOTE + code.len()) as u64;

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(2u16.to_le_bytes());
    elf.extend(62u16.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    for word in [entry, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let mut segment = |kind: u32, offset: u64, length: u64, align: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(7u32.to_le_bytes());
        for word in [offset, BASE + offset, BASE + offset, length, length, align] {
            elf.extend(word.to_le_bytes());
        }
    };
    segment(1, 0, size, 0x1000);
    segment(4, HEADERS as u64, NOTE as u64, 4);
    // The note: owner "Xen", type 18 (32-bit entry point), the address.
    for word in [4u32, 8, 18] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"Xen\0");
    elf.extend(entry.to_le_bytes());
    elf.extend(code);
    elf
}
