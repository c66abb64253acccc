# Shared by the scripts of the gon-linux image: names, and the reading of untrusted text.
#
# Rule: text from DHCP, from the metadata service or from the user is data. It is validated
# against a set of characters before it becomes an argument, and never becomes shell syntax.
# The one exception is the user-data script, which the owner of the instance asked us to run.
RUN=/run/gon
HOST_KEY=/etc/dropbear/host_ed25519
IMDS=169.254.169.254

say() {
    echo "gon-linux: $*" >/dev/console
}

# is_hostname TEXT: a DNS name of at most 253 characters, labels of at most 63.
is_hostname() {
    case $1 in
    '' | *[!A-Za-z0-9.-]* | .* | -* | *. | *- | *..* | *.-* | *-.*) return 1 ;;
    esac
    [ "${#1}" -le 253 ] || return 1
    _label=${1%%.*}
    [ "${#_label}" -le 63 ]
}

# is_ipv4 TEXT: only the shape; the kernel judges the rest.
is_ipv4() {
    case $1 in
    '' | *[!0-9.]* | *..* | .* | *.) return 1 ;;
    *.*.*.*.*) return 1 ;;
    *.*.*.*) return 0 ;;
    esac
    return 1
}

# set_hostname TEXT: takes it when it is a name, ignores it otherwise.
set_hostname() {
    is_hostname "$1" || return 1
    hostname "$1"
    printf '127.0.0.1 localhost\n127.0.1.1 %s %s\n' "$1" "${1%%.*}" >/etc/hosts
}
