#!/usr/bin/env bash
# `make deb`: the Debian packages of this checkout, in target/deb. `--debug` packs a build for tests instead of a release:
# it is larger and slower and made in a fraction of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

profile=release flags=(--release)
case ${1:-} in
  '') ;;
  --debug) profile=debug flags=() ;;
  *) echo "usage: $0 [--debug]" >&2; exit 2 ;;
esac
images=$GON_ROOT/target/gon-images

step "web console" scripts/console-build.sh
step "$profile binaries" cargo build "${flags[@]}" --locked -p gond -p gon
# Making an image needs root; one that is there is of this recipe, or is made anew.
step "machine image" as_root "target/$profile/gond" image build --images-dir "$images" gon-linux
step "packages" dist/deb/build.sh "target/$profile" "$images" target/deb
sed -n 's/^deb: /    /p' "$GON_LOG"
