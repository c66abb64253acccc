#!/usr/bin/env bash
# `make test`: installs what the tests need and runs all of them. What runs here is all that continuous integration runs.
# `make test-long` (`--long`): of the tests in scripts/long-tests the versions that do the whole figures of the fault
# matrix, one after the other; it prints what each of them did. `--long CRATE` does those of one crate.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if [ "$(id -u)" != 0 ]; then
  echo "The tests make network namespaces, switches and guests: run them as root (sudo make test)." >&2
  exit 1
fi

# The tests of scripts/long-tests, a crate at a time. A line is a crate and the path of a test in its binary "it".
long_tests() {
  local only=${1:-} crate figures=$GON_ROOT/target/gon-figures.txt failed=0
  : >"$figures"
  export GON_TEST_LONG=1 GON_TEST_FIGURES=$figures
  for crate in $(awk '!/^#/ && NF { print $1 }' scripts/long-tests | uniq); do
    if [ -n "$only" ] && [ "$only" != "$crate" ]; then continue; fi
    echo "── $crate"
    awk -v crate="$crate" '!/^#/ && $1 == crate { print $2 }' scripts/long-tests |
      xargs cargo test --locked -p "$crate" --test it -- --exact --nocapture --test-threads=1 || failed=1
  done
  echo "── What was done"
  cat "$figures"
  return "$failed"
}

begin=$(now_ms)
if [ "${1:-}" = --long ]; then
  step "system packages" scripts/setup.sh test
  long_tests "${2:-}"
  printf 'The long tests passed in %s s.\n' "$(seconds $(($(now_ms) - begin)))"
  exit 0
fi
# Without this much the tests fail late, and for reasons that do not say so: a guest's disk finds no place on the node.
room=4
if [ ! -d target/debug ]; then room=9; fi
if [ "$(df --output=avail -BG . | tail -n 1 | tr -dc 0-9)" -lt "$room" ]; then
  echo "The build and the tests need $room GiB of room here, and there is less." >&2
  exit 1
fi
# A build that is made once and thrown away needs nothing to continue from: half of what is written.
if [ -n "${CI:-}" ]; then export CARGO_INCREMENTAL=0; fi
step "system packages" scripts/setup.sh test
step "web console" scripts/console-build.sh
echo "── console"
# The same Node as the build's, wherever it came from.
scripts/console-build.sh exec npm run --silent lint
scripts/console-build.sh exec npm run --silent typecheck
scripts/console-build.sh exec npm test
echo "── console in a browser"
scripts/console-build.sh exec npm run --silent e2e:screens
echo "── format, lints, architecture, API contract"
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
cargo xtask arch
cargo xtask openapi --check
echo "── Rust"
cargo test --workspace --locked --no-run --quiet
results=$GON_ROOT/target/gon-test.log
failed=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$results" || failed=1
# The runners' own closing lines, added up.
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 } END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$results"
[ "$failed" = 0 ] || exit 1
printf 'All of it passed in %s s.\n' "$(seconds $(($(now_ms) - begin)))"
