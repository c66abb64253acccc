#!/usr/bin/env bash
# `make up`: from a machine with a Rust toolchain to a cloud with an instance that answers SSH. Idempotent.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

begin=$(now_ms)
gond=$GON_ROOT/target/release/gond
gon=$GON_ROOT/target/release/gon

if [ "$(id -u)" != 0 ]; then sudo -v; fi

# The daemon that runs may be an older build: it is replaced, and its guests never notice.
start_daemon() {
  as_root mkdir -p "$GON_DATA_DIR/log"
  if as_root "$gond" admin running --data-dir "$GON_DATA_DIR" --same-binary; then return 0; fi
  as_root "$gond" admin stop --data-dir "$GON_DATA_DIR"
  as_root bash -c 'setsid nohup "$1" standalone --data-dir "$2" --listen "$3" >>"$2/log/gond.log" 2>&1 </dev/null &' \
    - "$gond" "$GON_DATA_DIR" "$GON_LISTEN"
}

echo "Gon Cloud Platform"
step "system packages" as_root scripts/setup.sh runtime
step "web console" scripts/console-build.sh
step "release binaries" cargo build --release --locked -p gond -p gon
step "machine images" as_root "$gond" image build --images-dir "$GON_DATA_DIR/images" all
step "daemon" start_daemon
as_root "$gon" quickstart --data-dir "$GON_DATA_DIR" --url "http://$GON_LISTEN"
# The person who typed `sudo` must be able to read the SSH key it made.
if [ -n "${SUDO_UID:-}" ]; then as_root chown -R "$SUDO_UID" "$GON_DATA_DIR/quickstart"; fi
if [ "$(id -u)" != 0 ]; then
  as_root chmod 711 "$GON_DATA_DIR"
  as_root chown -R "$(id -u)" "$GON_DATA_DIR/quickstart"
fi
. "$GON_DATA_DIR/quickstart/instance.env"
step "ping $GON_INSTANCE_IP" ping -c 1 -W 5 "$GON_INSTANCE_IP"
step "ssh root@$GON_INSTANCE_IP" bash -c "$GON_INSTANCE_SSH uptime"
echo
cat "$GON_DATA_DIR/quickstart/summary.txt"
printf '\nUp in %s s.\n' "$(seconds $(($(now_ms) - begin)))"
