#!/usr/bin/env bash
# `make bench`: ours beside the peers, interleaved in one run. `make bench` measures everything; `scripts/bench.sh api
# launch rules memory quickstart site net` only what is named. Slow is no error: the table has marks for people.
#
# `net` takes ten minutes. GON_BENCH_PORTS=100,1000 are its sizes, GON_BENCH_ROUNDS=20 how often it does each thing,
# GON_BENCH_SECONDS=3 how long TCP runs, GON_BENCH_SITE=1000,10000,100 VPCs, ports and nodes of its site in memory.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if [ "$(id -u)" != 0 ]; then
  echo "The benchmark makes network namespaces, switches and guests: run it as root (sudo make bench)." >&2
  exit 1
fi

# The peer of the API: moto's in-memory EC2, from PyPI, in a folder of its own.
install_moto() {
  local venv=target/bench-venv
  if [ -x $venv/bin/moto_server ]; then return 0; fi
  rm -rf $venv
  python3 -m venv $venv
  $venv/bin/pip install --quiet --disable-pip-version-check 'moto[ec2,server]'
}

step "system packages" scripts/setup.sh bench
step "moto" install_moto
# The peer of the network. Without it the rest is measured all the same, and says so.
step "OVN" scripts/setup.sh ovn || echo "  OVN cannot be installed here; its figures will be recorded ones."
step "web console" scripts/console-build.sh
step "release binaries" cargo build --release --locked -p gond -p gon -p e2e --bins
exec target/release/bench "$@"
