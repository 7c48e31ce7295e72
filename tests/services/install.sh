#!/usr/bin/env bash
# Installs the real services that the tests start: Apache Kafka, PostgreSQL, PgBouncer, an S3 server, emulators of the
# object stores of Azure and Google, an SMTP server; Redis, and the bridge from it; Chromium and axe-core, which look at
# the operators' page; and what builds and runs containers: podman, buildah and their networks, debootstrap for the
# base images, and Compose.
# For Debian with Java 17, Maven, Go and npm; run it as root or with sudo. A second run finds everything in place.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
# shellcheck source=installing.sh
source "$(dirname "${BASH_SOURCE[0]}")/installing.sh"
no_start=/usr/sbin/policy-rc.d
held_back=""
root="$here/../.."
trap 'rm -rf "$work"; [ -z "$held_back" ] || as_root rm -f "$no_start"' EXIT

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Debian starts a server when it installs it; a policy-rc.d that says 101 holds it back.
hold_back_services() {
  [ -z "$held_back" ] && [ ! -e "$no_start" ] || return 0
  held_back=yes
  printf '#!/bin/sh\nexit 101\n' >"$work/policy-rc.d"
  as_root install -m 755 "$work/policy-rc.d" "$no_start"
}

# apt-get waits for another's lock on packages by itself, but not for one on the lists.
patiently() {
  local tries=20
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 6
  done
}

apt_install() {
  need apt-get "$1"
  hold_back_services
  quietly patiently as_root apt-get update -q
  quietly as_root apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

newest_postgres() { find /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -V | tail -n 1; }

install_kafka() {
  local jars="$cache/kafka-$KAFKA"
  if ! compgen -G "$jars/slf4j-simple-*.jar" >/dev/null; then
    need java Kafka
    need mvn Kafka
    quietly mvn -q -B -f "$here/kafka.pom.xml" "-Dkafka.version=$KAFKA" "-Dscala.version=$SCALA" \
      dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$work/kafka"
    rm -rf "$jars"
    mv "$work/kafka" "$jars"
  fi
  say kafka "Apache Kafka $KAFKA in $jars"
}

install_postgres() {
  [ -n "$(newest_postgres)" ] || apt_install postgresql
  say postgres "$("$(newest_postgres)" --version)"
}

install_pgbouncer() {
  [ -x /usr/sbin/pgbouncer ] || apt_install pgbouncer
  say pgbouncer "$(/usr/sbin/pgbouncer --version | head -n 1)"
}

install_smtp() {
  [ -x /usr/sbin/exim4 ] || apt_install exim4-daemon-light
  say smtp "$(/usr/sbin/exim4 -bV | head -n 1)"
}

install_azurite() {
  local emulator="$cache/azurite-$AZURITE"
  if [ ! -d "$emulator" ]; then
    need npm Azurite
    quietly npm install --prefix "$work/azurite" --no-audit --no-fund --ignore-scripts "azurite@$AZURITE"
    mv "$work/azurite" "$emulator"
  fi
  say azurite "$AZURITE in $emulator"
}

install_chromium() {
  local axe="$cache/axe-core-$AXE_CORE"
  [ -x /usr/bin/chromium ] || apt_install chromium
  if [ ! -d "$axe" ]; then
    need npm axe-core
    quietly npm install --prefix "$work/axe" --no-audit --no-fund --ignore-scripts "axe-core@$AXE_CORE"
    mv "$work/axe/node_modules/axe-core" "$axe"
  fi
  say chromium "$(/usr/bin/chromium --version 2>/dev/null), axe-core $AXE_CORE in $axe"
}

install_redis() {
  [ -x /usr/bin/redis-server ] || apt_install redis-server
  say redis "$(/usr/bin/redis-server --version | cut -d' ' -f1-3)"
}

# Node comes as a package of npm, because Debian's is too old for the bridge.
install_bridge() {
  local machine bridge="$root/deploy/bridge" node="$cache/node-$NODE-$NPM" packages
  case "$(uname -m)" in aarch64) machine=arm64 ;; *) machine=x64 ;; esac
  packages="$cache/bridge-$(sha256sum "$bridge/package-lock.json" | cut -c1-16)"
  need npm "the bridge"
  if [ ! -d "$node" ]; then
    quietly npm install --prefix "$work/node" --no-audit --no-fund --ignore-scripts \
      "node-linux-$machine@$NODE" "npm@$NPM"
    mv "$work/node" "$node"
  fi
  if [ ! -d "$packages" ]; then
    mkdir "$work/bridge"
    cp "$bridge/package.json" "$bridge/package-lock.json" "$bridge/.npmrc" "$work/bridge"
    quietly env "PATH=$node/node_modules/node-linux-$machine/bin:$PATH" \
      npm ci --prefix "$work/bridge" --no-audit --no-fund
    mv "$work/bridge" "$packages"
  fi
  say bridge "Node $NODE in $node, packages in $packages"
}

install_containers() {
  local packages=(podman buildah runc catatonit containernetworking-plugins iptables debootstrap
    golang-github-containernetworking-plugin-dnsname)
  dpkg-query --show "${packages[@]}" >"$work/packages" 2>&1 || apt_install "${packages[@]}"
  say containers "$(podman --version), $(buildah --version | cut -d' ' -f1-3)"
}

install_kafka
install_postgres
install_pgbouncer
install_go versitygw "$VERSITYGW" github.com/versity/versitygw/cmd/versitygw
install_azurite
install_go fake-gcs-server "$FAKE_GCS_SERVER" github.com/fsouza/fake-gcs-server
install_smtp
install_chromium
install_redis
install_bridge
install_containers
