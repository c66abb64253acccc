#!/usr/bin/env bash
# Makes the Debian packages of what cargo has built. Needs dpkg-deb and binutils, and not root.
#
#   dist/deb/build.sh BINARIES IMAGES OUT
#
# BINARIES is a directory with gond and gon, IMAGES an image store; OUT gets
#
#   gon-cloud          both programs, the units, accounts, directories, settings of journal and log files
#   gon-cloud-control  what the first server needs of the distribution (no files of its own)
#   gon-cloud-node     what a node needs: the same, and its kernel modules and settings
#   gon-images         the machine image 'gon-linux', for nodes
#
# and nothing that was there before. The same commit makes the same bytes. docs/adr/0008 says why this is a script.
set -euo pipefail
binaries=${1:?usage: $0 BINARIES IMAGES OUT}
images=${2:?usage: $0 BINARIES IMAGES OUT}
out=${3:?usage: $0 BINARIES IMAGES OUT}
dist=$(cd "$(dirname "$0")/.." && pwd)
say() { printf 'deb: %s\n' "$*"; }

glibc=$("$dist/deb/check-portable.sh" "$binaries/gond" "$binaries/gon")
say "needs glibc $glibc (2.35 is Ubuntu 22.04's)"

SOURCE_DATE_EPOCH=$(git -C "$dist" log -1 --format=%ct)
export SOURCE_DATE_EPOCH LC_ALL=C
base=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$dist/../Cargo.toml")
version=$base
# A build between two releases is older than the next and newer than the one before.
if [ "$(git -C "$dist" describe --exact-match --tags 2>/dev/null || :)" != "v$base" ]; then
  version="$base~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git -C "$dist" rev-parse --short=7 HEAD)"
fi

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$out"
rm -f "$out"/gon-*.deb

# put MODE DIRECTORY FILE…: into the package that is being made
put() {
  local mode=$1 dir=$root/$2
  shift 2
  install -d -m 755 "$dir"
  install -m "$mode" -t "$dir" "$@"
}

# pack PACKAGE ARCHITECTURE SECTION DESCRIPTION FIELD…
pack() {
  local package=$1 architecture=$2 description=$3 field
  shift 3
  install -d -m 755 "$root/DEBIAN" "$root/usr/share/doc/$package"
  install -m 644 "$dist/../LICENSE" "$root/usr/share/doc/$package/copyright"
  {
    printf 'Package: %s\nVersion: %s\nArchitecture: %s\n' "$package" "$version" "$architecture"
    printf 'Maintainer: Gon Cloud Platform <root@localhost>\nSection: admin\nPriority: optional\n'
    printf 'Installed-Size: %s\n' "$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)"
    for field in "$@"; do printf '%s\n' "$field"; done
    printf 'Description: %s\n' "$description"
  } >"$root/DEBIAN/control"
  # What stands in /etc is the administrator's once it is there.
  if [ -d "$root/etc" ]; then (cd "$root" && find etc -type f | sort | sed 's|^|/|') >"$root/DEBIAN/conffiles"; fi
  (cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0r md5sum) >"$root/DEBIAN/md5sums"
  find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
  dpkg-deb --root-owner-group -Zxz -z"${GON_DEB_LEVEL:-3}" --build "$root" "$out/${package}_${version}_${architecture}.deb" >/dev/null
  say "$(cd "$out" && du -h "${package}_${version}_${architecture}.deb" | tr '\t' ' ')"
}

root=$tree/gon-cloud
put 755 usr/bin "$binaries/gond" "$binaries/gon"
# A build for tests has its line tables still; they are of no use on a server.
strip --strip-debug "$root/usr/bin/gond" "$root/usr/bin/gon"
put 644 usr/lib/systemd/system "$dist"/systemd/*
put 644 usr/lib/sysusers.d "$dist/sysusers/gon.conf"
put 644 usr/lib/tmpfiles.d "$dist/tmpfiles/gon.conf"
put 644 usr/lib/systemd/journald.conf.d "$dist/journald/gon.conf"
put 644 usr/share/gon "$dist/etc/gon.toml"
put 644 etc/logrotate.d "$dist/logrotate/gon"
put 644 etc/needrestart/conf.d "$dist/needrestart/gon.conf"
for page in gon.1 gond.8; do
  install -d -m 755 "$root/usr/share/man/man${page##*.}"
  gzip -9n <"$dist/man/$page" >"$root/usr/share/man/man${page##*.}/$page.gz"
done
install -D -m 755 -t "$root/DEBIAN" "$dist"/deb/{postinst,prerm,postrm}
pack gon-cloud amd64 'Gon Cloud Platform: a small EC2 of your own
 VPC networks, virtual machines, security groups and public addresses, with a
 REST API and a web console, on one server or several. This package has the
 programs and the units; gon-cloud-control and gon-cloud-node bring what a
 server of the control plane and a node need of the distribution.' \
  "Depends: libc6 (>= $glibc), libgcc-s1, systemd, iproute2, iputils-ping, kmod, ca-certificates, logrotate" \
  'Recommends: systemd-timesyncd | time-daemon'

root=$tree/gon-cloud-control
pack gon-cloud-control all 'Gon Cloud Platform: what the first server needs
 PostgreSQL, RabbitMQ and etcd of the distribution; "gond admin init" sets them
 up.' \
  "Depends: gon-cloud (>= $version), postgresql (>= 14), postgresql-client, rabbitmq-server, etcd-server | etcd"

root=$tree/gon-cloud-node
put 644 usr/lib/modules-load.d "$dist/modules-load/gon.conf"
put 644 usr/lib/sysctl.d "$dist/sysctl/60-gon.conf"
pack gon-cloud-node all 'Gon Cloud Platform: what a node needs
 Open vSwitch, QEMU and nftables of the distribution, and the kernel modules and
 settings of a server on which guests run. It forwards IPv4.' \
  "Depends: gon-cloud (>= $version), openvswitch-switch, qemu-system-x86, nftables, ethtool" \
  'Recommends: gon-images, docker.io' \
  'Suggests: lvm2, mmdebstrap'

root=$tree/gon-images
put 644 var/lib/gon/images/gon-linux "$images"/gon-linux/*
chmod 711 "$root/var/lib/gon"
pack gon-images all 'Gon Cloud Platform: machine image gon-linux
 A kernel and a small root file system that answers SSH within seconds, for
 nodes that cannot or need not build images ("gond image build").'
