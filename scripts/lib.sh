# Shared by the scripts of the Makefile: where things are, how a step is shown, how root is reached.
# Sourced by bash with `set -euo pipefail`.

GON_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
GON_DATA_DIR=${GON_DATA_DIR:-$GON_ROOT/.gon}
GON_LISTEN=${GON_LISTEN:-127.0.0.1:8080}
GON_LOG=${GON_LOG:-$GON_ROOT/target/gon-make.log}
mkdir -p "$GON_ROOT/target"
: >"$GON_LOG"

# as_root CMD…: runs it as root, through sudo where we are not root already.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo --preserve-env=GON_DATA_DIR,GON_LISTEN,GON_ADMIN_USER,GON_ADMIN_PASSWORD "$@"; fi
}

# now_ms: milliseconds since some fixed moment.
now_ms() { local s; read -r s _ </proc/uptime; printf '%s' "$(( ${s%.*} * 1000 + 10#${s#*.} * 10 ))"; }

seconds() { printf '%d.%d' "$(($1 / 1000))" "$((($1 % 1000) / 100))"; }

# step TEXT CMD…: runs CMD with its output in the log, shows progress and the time it took; shows the log's end if it fails.
step() {
  local text=$1 begin rc=0 pid elapsed
  shift
  begin=$(now_ms)
  printf '== %s: %s\n' "$text" "$*" >>"$GON_LOG"
  "$@" >>"$GON_LOG" 2>&1 </dev/null &
  pid=$!
  if [ -t 1 ]; then
    while kill -0 "$pid" 2>/dev/null; do
      printf '\r  … %s  %s s ' "$text" "$(seconds $(($(now_ms) - begin)))"
      sleep 0.2
    done
    printf '\r\033[K'
  fi
  wait "$pid" || rc=$?
  elapsed=$(($(now_ms) - begin))
  if [ "$rc" != 0 ]; then
    printf '  ✗ %s failed after %s s. The end of %s:\n' "$text" "$(seconds "$elapsed")" "$GON_LOG" >&2
    tail -n 30 "$GON_LOG" | sed 's/^/    /' >&2
    return "$rc"
  fi
  printf '  ✓ %s  %s s\n' "$text" "$(seconds "$elapsed")"
}
