#!/usr/bin/env bash
# `make test`: installs what the tests need and runs all of them. What runs here is all that continuous integration runs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

if [ "$(id -u)" != 0 ]; then
  echo "The tests make network namespaces, switches and guests: run them as root (sudo make test)." >&2
  exit 1
fi
begin=$(now_ms)
step "system packages" scripts/setup.sh test
step "web console" scripts/console-build.sh
echo "── console"
# The same Node as the build's, wherever it came from.
scripts/console-build.sh exec npm run --silent lint
scripts/console-build.sh exec npm run --silent typecheck
scripts/console-build.sh exec npm test
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
