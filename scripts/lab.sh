#!/usr/bin/env bash
# `make test-lab`: three servers as virtual machines, installed from target/deb as the README tells a user, and what they
# prove. Root. All of it (machines, network, SSH) lives in namespaces of its own and ends with this script, however it
# ends; disks are written to a file that has no name. What stays is target/lab: the servers' image, and the logs of a run
# that failed.
#
#   scripts/lab.sh [--keep] [--debs DIR]      --keep: when a check fails, leave the machines up until Ctrl-C
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if [ "$(id -u)" != 0 ]; then
  echo "The lab makes network devices and virtual machines: run it as root (sudo make test-lab)." >&2
  exit 1
fi
missing=()
while read -r program package; do
  command -v "$program" >/dev/null || missing+=("$package")
done <<'NEEDED'
qemu-system-x86_64 qemu-system-x86
mmdebstrap mmdebstrap
mke2fs e2fsprogs
ssh openssh-client
ping iputils-ping
python3 python3
NEEDED
if [ ${#missing[@]} -gt 0 ]; then
  step "system packages" apt-get -y -qq --no-install-recommends install "${missing[@]}"
fi
# Three servers of 2 GiB each, and room for what they write.
need() { echo "The lab needs $1." >&2; exit 1; }
[ "$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)" -ge 7 ] || need "7 GiB of free memory"
mkdir -p target/lab
[ "$(df --output=avail -BG target/lab | tail -n 1 | tr -dc 0-9)" -ge 12 ] || need "12 GiB of disk in target/lab"
step "image of a stock server" lab/image.sh "$GON_ROOT/target/lab"

run=$(mktemp -d "$GON_ROOT/target/lab/run.XXXXXX")
trap 'rm -rf "$run"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Not `exec`: the directory is ours to remove. Whatever runs in there ends with its first process.
TMPDIR=$run PYTHONDONTWRITEBYTECODE=1 unshare --net --mount --pid --fork --mount-proc --kill-child=SIGKILL \
  python3 lab/lab.py --run "$run" "$@" &
lab=$!
# `unshare` does not listen to gentle signals while it waits; with it, the first process in there goes, and all the others.
end() { kill -KILL "$lab" 2>/dev/null || :; wait "$lab" 2>/dev/null || :; exit "$1"; }
trap 'end 130' INT
trap 'end 143' TERM
rc=0
wait "$lab" || rc=$?
exit "$rc"
