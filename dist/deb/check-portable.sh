#!/usr/bin/env bash
# What programs need of the system they are to run on. Prints the oldest glibc that has it all, and fails if that is newer
# than 2.35, which Ubuntu 22.04 has (Debian 12: 2.36), or if a library is needed that is not of glibc or GCC.
#
#   dist/deb/check-portable.sh PROGRAM…
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 PROGRAM…" >&2; exit 2; }
limit=${GON_GLIBC:-2.35}
worst=0
for program in "$@"; do
  # Symbols that are looked for elsewhere, with the version they must have. A weak one may be absent and counts all the
  # same: the loader refuses a program for a version its libc does not know, whoever asks for it, unless all who ask are
  # weak, and then only warns.
  symbols=$(objdump -T "$program" | awk '/\*UND\*/ && match($0, /GLIBC_[0-9.]+/) {
    print substr($0, RSTART + 6, RLENGTH - 6), $NF }' | sort -V)
  # The versions as the loader checks them before anything runs: they must tell the same story.
  needs=$(readelf -V --wide "$program" | grep -o 'Name: GLIBC_[0-9.]*' | sed 's/.*GLIBC_//' | sort -Vu)
  newest=$(printf '%s\n%s\n' "$needs" "$(cut -d' ' -f1 <<<"$symbols")" | sort -V | tail -n 1)
  [ -n "$newest" ] || { echo "$program: no version of glibc is named: is it a program?" >&2; exit 1; }
  if [ "$(printf '%s\n%s\n' "$newest" "$limit" | sort -V | tail -n 1)" != "$limit" ]; then
    echo "$program needs glibc $newest, and has to run with $limit. By these symbols:" >&2
    while read -r version name; do
      [ "$(printf '%s\n%s\n' "$version" "$limit" | sort -V | tail -n 1)" = "$limit" ] || echo "  GLIBC_$version  $name" >&2
    done <<<"$symbols"
    exit 1
  fi
  worst=$(printf '%s\n%s\n' "$newest" "$worst" | sort -V | tail -n 1)
  strange=$(readelf -d --wide "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
    grep -vxE 'lib(c|m|dl|rt|pthread)\.so\.[0-9]+|libgcc_s\.so\.1|ld-linux-x86-64\.so\.2' || :)
  [ -z "$strange" ] || { echo "$program needs libraries that not every server has:" $strange >&2; exit 1; }
done
echo "$worst"
