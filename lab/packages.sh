# What the servers of the lab are made of. Sourced by lab/image.sh and scripts/lab.sh.

# A stock server: what any Debian 12 installation over SSH has. Nothing of ours.
STOCK=(
  linux-image-cloud-amd64 systemd-sysv udev dbus kmod procps openssh-server sudo iproute2 iputils-ping
  ca-certificates apt-utils less netbase systemd-timesyncd libpam-systemd
)
# What the README's `apt install` pulls in. The image carries the packages, not installed, in apt's own cache, for the
# lab has no mirror: apt resolves and installs them as on any server. What is missing here shows as a failed install.
CACHED=(
  postgresql rabbitmq-server etcd-server
  openvswitch-switch qemu-system-x86 nftables iproute2 iputils-ping ethtool kmod ca-certificates
  mmdebstrap debian-archive-keyring e2fsprogs lz4 zstd xz-utils
  lvm2 thin-provisioning-tools docker.io chrony
)
