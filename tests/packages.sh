#!/usr/bin/env bash
# Installs the packages of the named groups of tests/packages.txt that are missing: `tests/packages.sh build tests`.
# As root, or through sudo. Does nothing, and asks for no rights, when all are there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

wanted=()
for group in "$@"; do
  while read -r of name _; do
    [[ $of == "$group" ]] && wanted+=("$name")
  done < <(grep -v '^#' "$here/packages.txt")
done

if ! command -v dpkg-query >/dev/null; then
  echo "note: not a Debian or Ubuntu system; install what these packages hold by your own means: ${wanted[*]}" >&2
  exit 0
fi
missing=()
for name in "${wanted[@]}"; do
  dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "error: packages are missing; no root rights and no sudo; as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}" >&2
# Two scripts may do this at once: wait for the other's lock.
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=900 "$@" >&2; }
apt update || apt update
apt install -y --no-install-recommends "${missing[@]}"
