# What the scripts that install for the tests share: the cache, a work folder, and words; to be sourced.
exec </dev/null
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=versions.env
source "$here/versions.env"
cache="${WAYBILL_TEST_CACHE:-$HOME/.cache/waybill-tests}"
mkdir -p "$cache"
work="$(mktemp -d "$cache/.installing-XXXXXX")"
trap 'rm -rf "$work"' EXIT

say() { printf '%-13s %s\n' "$1" "$2"; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$2 needs $1, which is not on the PATH"; }

# Runs a command in silence; when it fails, shows what it said.
quietly() {
  "$@" >"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; fail "failed: $*"; }
}

# A program of Go by name, version and package, in the cache under name-version; built with the tags given, if any.
install_go() {
  local binary="$cache/$1-$2"
  if [ ! -x "$binary" ]; then
    need go "$1"
    quietly env CGO_ENABLED=0 "GOBIN=$work/bin" go install -trimpath -ldflags='-s -w' "-tags=${4:-}" "$3@v$2"
    mv "$work/bin/$(basename "$3")" "$binary"
  fi
  say "$1" "$2 in $binary"
}
