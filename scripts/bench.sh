#!/usr/bin/env bash
# `make bench`: ours beside the peers, interleaved in one run. `make bench` measures everything; `scripts/bench.sh api
# launch rules memory quickstart site` only what is named. Slow is no error: the table has marks for people.
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
step "web console" scripts/console-build.sh
step "release binaries" cargo build --release --locked -p gond -p gon -p e2e --bins
exec target/release/bench "$@"
