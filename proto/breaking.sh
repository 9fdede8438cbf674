#!/usr/bin/env bash
# Compares the proto files with those of the last release: what was promised must still be understood.
set -euo pipefail
if ! tag=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); then
  echo 'no release to compare with yet'
  exit 0
fi
exec npx buf breaking --against ".git#tag=$tag"
