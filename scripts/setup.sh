#!/usr/bin/env bash
# Installs the system packages that the README's commands need, on Debian 12 and Ubuntu 22.04 (or newer).
#
#   scripts/setup.sh runtime     what `make up` needs (the default)
#   scripts/setup.sh test        that, and what `make test` needs
#   scripts/setup.sh bench       that, and what `make bench` needs
#   scripts/setup.sh ovn         OVN alone, which `make bench` measures beside our network
#
# Root or sudo. Asks nothing, changes nothing when everything is there (and then takes no time), and leaves the machine
# as it found it but for the packages: their daemons are neither started nor enabled, for the platform runs its own,
# and PostgreSQL makes no cluster of its own. What ran before keeps running.
set -euo pipefail

# A C compiler and linker for the build; the platform's own work; the machine images; the quick start.
RUNTIME=(
  build-essential ca-certificates protobuf-compiler libprotobuf-dev
  qemu-system-x86 openvswitch-switch nftables iproute2 ethtool kmod postgresql
  mmdebstrap debian-archive-keyring e2fsprogs lz4 zstd xz-utils
  openssh-client iputils-ping
)
TEST=(tcpdump curl iptables python3 rabbitmq-server etcd-server etcd-client)
# The console's browser. Ubuntu has it as a snap only: there the tests need one that CHROMIUM names.
[ "$(. /etc/os-release && printf '%s' "$ID")" = ubuntu ] || TEST+=(chromium)
BENCH=(python3-venv)
OVN=(ovn-central ovn-host)

# Services that the packages above bring and nobody here wants: (package, units).
SERVICES=(
  "openvswitch-switch openvswitch-switch.service ovs-vswitchd.service ovsdb-server.service"
  "postgresql postgresql.service"
  "rabbitmq-server rabbitmq-server.service"
  "etcd-server etcd.service"
  "ovn-central ovn-central.service ovn-northd.service ovn-ovsdb-server-nb.service ovn-ovsdb-server-sb.service"
  "ovn-host ovn-host.service ovn-controller.service"
)

say() { printf 'packages: %s\n' "$*"; }
die() { printf 'packages: %s\n' "$*" >&2; exit 1; }

case ${1:-runtime} in
  runtime) packages=("${RUNTIME[@]}") ;;
  test) packages=("${RUNTIME[@]}" "${TEST[@]}") ;;
  bench) packages=("${RUNTIME[@]}" "${TEST[@]}" "${BENCH[@]}") ;;
  ovn) packages=("${OVN[@]}") ;;
  *) die "usage: $0 [runtime | test | bench | ovn]" ;;
esac
[ $# -le 1 ] || die "usage: $0 [runtime | test | bench | ovn]"
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || die "this is neither Debian nor Ubuntu"

# Without a Node that the console's build accepts, it installs one from PyPI, and needs a venv for that
# (scripts/console-build.sh has the same condition).
node_fits() {
  command -v npm >/dev/null && node -e '
    const [a, b] = process.versions.node.split(".").map(Number);
    process.exit((a === 20 && b >= 19) || (a === 22 && b >= 12) || a > 22 ? 0 : 1)' 2>/dev/null
}
node_fits || packages+=(python3 python3-venv)

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
find_missing() {
  local package have
  missing=()
  have=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "${packages[@]}" 2>/dev/null || :)"
  for package in "${packages[@]}"; do
    case $have in *" installed:$package "*) continue ;; esac
    # Another source's server does as well as the distribution's metapackage.
    if [ "$package" = postgresql ] && compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then continue; fi
    case " ${missing[*]-} " in *" $package "*) continue ;; esac
    missing+=("$package")
  done
}
find_missing
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || die "needs root, and there is no sudo: run it as root"
  exec sudo -n "$0" "$@"
fi

export DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical APT_LISTCHANGES_FRONTEND=none UCF_FORCE_CONFFOLD=1
export NEEDRESTART_SUSPEND=1 LC_ALL=C
APT=(apt-get -qq -y --no-install-recommends --no-remove
  -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o APT::Get::Show-Upgraded=false
  -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
policy_is_ours=false
cleanup() {
  rm -f "$log"
  if $policy_is_ours; then rm -f "$policy"; fi
}
trap cleanup EXIT
# A signal is an exit, too: the policy must not stay.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# quietly CMD…: its output is shown only if it fails.
quietly() {
  if "$@" >"$log" 2>&1 </dev/null; then return 0; fi
  sed 's/^/    /' "$log" | tail -n 40 >&2
  return 1
}

update() {
  say "reading the package lists"
  quietly apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 update || say "some lists could not be read"
}

# A list that is a day old names versions that the archive may have replaced.
lists_are_fresh() { [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mmin -1440 -print -quit 2>/dev/null)" ]; }

works() { "${APT[@]}" --simulate install "$@" >/dev/null 2>&1 </dev/null; }

# Arguments of apt-get for what is missing, in two steps of which the first may be empty. QEMU's parts have to be of one
# version: where some came from backports, the rest has to come from there as well; where that suite is not to be had
# any more, those go back to the release's. Any of it is done only if apt finds it possible.
first=() plan=()
make_plan() {
  local suite part version
  first=() plan=("${missing[@]}")
  works "${plan[@]}" && return 0
  # Nothing but QEMU is taken from there.
  suite=$(. /etc/os-release && printf '%s-backports' "$VERSION_CODENAME")
  first=(-t "$suite") plan=()
  for part in "${missing[@]}"; do
    case $part in qemu-*) first+=("$part") ;; *) plan+=("$part") ;; esac
  done
  works "${first[@]}" && works "${plan[@]}" && return 0
  first=() plan=(--allow-downgrades "${missing[@]}")
  for part in $(dpkg-query -W -f '${db:Status-Status}:${Package}\n' 'qemu-*' 2>/dev/null | sed -n 's/^installed://p'); do
    # The newest version that a configured source has; what is only installed has none.
    version=$(apt-cache madison "$part" 2>/dev/null | awk -F' *[|] *' 'NR == 1 { print $2 }')
    [ -z "$version" ] || plan+=("$part=$version")
  done
  works "${plan[@]}"
}

carry_out() {
  if [ ${#first[@]} -gt 0 ]; then quietly "${APT[@]}" install "${first[@]}" || return 1; fi
  if [ ${#plan[@]} -gt 0 ]; then quietly "${APT[@]}" install "${plan[@]}" || return 1; fi
}

# No daemon is started while this file says so. One that is there already is somebody's decision.
if ! [ -e "$policy" ]; then
  policy_is_ours=true
  printf '#!/bin/sh\n# Of scripts/setup.sh, while it runs.\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

# Only what we bring is switched off.
unwanted=()
for service in "${SERVICES[@]}"; do
  read -r package units <<<"$service"
  is_installed "$package" || read -r -a unwanted <<<"${unwanted[*]-} $units"
done
if ! is_installed postgresql-common && ! [ -e /etc/postgresql-common/createcluster.conf ]; then
  mkdir -p /etc/postgresql-common
  printf '# Whoever wants a cluster makes it with pg_createcluster.\ncreate_main_cluster = false\n' \
    >/etc/postgresql-common/createcluster.conf
fi

updated=false
if ! lists_are_fresh; then
  update
  updated=true
fi
if ! make_plan; then
  if ! $updated; then
    update
    updated=true
  fi
  if ! make_plan; then
    quietly "${APT[@]}" --simulate install "${missing[@]}" || :
    die "apt cannot install: ${missing[*]}"
  fi
fi
say "installing ${missing[*]}"
if ! carry_out; then
  # The archive has moved on since the lists were read, or had a bad moment.
  if $updated; then sleep 5; fi
  update
  find_missing
  make_plan && carry_out || die "installation failed"
fi
if [ ${#unwanted[@]} -gt 0 ] && command -v systemctl >/dev/null; then
  # Not all of them exist in each release.
  for unit in "${unwanted[@]}"; do systemctl disable "$unit" >/dev/null 2>&1 || :; done
fi
find_missing
[ ${#missing[@]} -eq 0 ] || die "still missing: ${missing[*]}"
