//! Door to the host: processes, OVS, QEMU, netfilter, images.
