//! End-to-end tests on real PostgreSQL, Open vSwitch and QEMU.
