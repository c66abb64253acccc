#!/usr/bin/env bash
# `make down`: stops everything this checkout started and proves that nothing is left. `--remove-data` removes the data.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

gond=$GON_ROOT/target/release/gond
if [ ! -x "$gond" ]; then gond=$GON_ROOT/target/debug/gond; fi
if [ -d "$GON_DATA_DIR" ]; then
  if [ ! -x "$gond" ]; then
    echo "There is data in $GON_DATA_DIR but no gond to stop it with: run 'cargo build --release -p gond' first." >&2
    exit 1
  fi
  as_root "$gond" admin down --data-dir "$GON_DATA_DIR"
else
  echo "Nothing to stop: $GON_DATA_DIR does not exist."
fi
if [ "${1:-}" = --remove-data ]; then
  as_root rm -rf "$GON_DATA_DIR"
  echo "Removed $GON_DATA_DIR."
fi
