#!/usr/bin/env bash
# The disk of a lab server: Debian 12 with a kernel, systemd and SSH, as somebody would have installed it.
#
#   lab/image.sh DIR
#
# Makes DIR/{server.raw,vmlinuz,initrd.img,id_ed25519} unless they are there and of this recipe. Root.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/packages.sh"
out=${1:?usage: $0 DIR}
mkdir -p "$out"
recipe=$(cat "$here/image.sh" "$here/packages.sh" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/recipe" 2>/dev/null)" = "$recipe" ]; then exit 0; fi
rm -f "$out/recipe"

[ -e "$out/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C gon-lab -f "$out/id_ed25519"
root=$out/root
rm -rf "$root"
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The lists and the cache stay: they are the lab's mirror.
mmdebstrap --variant=minbase --skip=cleanup/apt --include="$(IFS=,; echo "${STOCK[*]}")" \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --customize-hook='chroot "$1" apt-get clean' \
  --customize-hook="chroot \"\$1\" apt-get -y -qq --download-only --no-install-recommends install ${CACHED[*]}" \
  bookworm "$root"

etc=$root/etc
install -D -m 600 "$out/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
echo 'PermitRootLogin prohibit-password' >"$etc/ssh/sshd_config.d/lab.conf"
# One network card; the address is by the card's number (lab/net.sh has the same table).
for n in 1 2 3; do
  cat >"$etc/systemd/network/10-lab-$n.network" <<NETWORK
[Match]
MACAddress=52:54:00:6c:61:0$n
[Network]
Address=121.36.55.$n/24
Gateway=121.36.55.254
LinkLocalAddressing=no
IPv6AcceptRA=no
NETWORK
done
# `enp0s2` on one machine model and `ens3` on another helps nobody here.
mkdir -p "$etc/systemd/network"
ln -sf /dev/null "$etc/systemd/network/99-default.link"
cat >"$etc/hosts" <<'HOSTS'
127.0.0.1 localhost
121.36.55.1 control
121.36.55.2 worker-1
121.36.55.3 worker-2
HOSTS
rm -f "$etc/hostname" "$etc/machine-id"
: >"$etc/machine-id"
echo '/dev/vda / ext4 defaults,errors=remount-ro 0 1' >"$etc/fstab"
# The clock is the machine's that runs us; there is nobody to ask.
mkdir -p "$etc/systemd/system.conf.d" "$etc/systemd/journald.conf.d"
# Under emulation everything takes its time.
printf '[Manager]\nDefaultTimeoutStartSec=300\nDefaultTimeoutStopSec=60\n' >"$etc/systemd/system.conf.d/lab.conf"
printf '[Journal]\nStorage=persistent\nForwardToConsole=no\n' >"$etc/systemd/journald.conf.d/lab.conf"
for unit in systemd-networkd ssh; do
  systemctl --root="$root" enable "$unit" >/dev/null 2>&1
done
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer man-db.timer systemd-networkd-wait-online.service; do
  systemctl --root="$root" mask "$unit" >/dev/null 2>&1
done
chroot "$root" ssh-keygen -A >/dev/null
mkdir -p "$root/boot"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd.img"
rm -f "$out/server.raw"
truncate -s 12G "$out/server.raw"
mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=1 -L gon-lab -d "$root" "$out/server.raw"
echo "$recipe" >"$out/recipe"
