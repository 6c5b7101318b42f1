#!/bin/sh
# Installs what the presets need to build program and tests, with --tests also what running the tests needs, on Debian 12 and 13 and Ubuntu 24.04.
# When everything is there it returns at once, without asking for root or the network.
set -eu

packages="gcc libc6-dev cmake ninja-build pkg-config libjansson-dev libpcre2-dev libutf8proc-dev libssl-dev libopenblas-openmp-dev libcmocka-dev"
test_packages="g++ xz-utils time gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"

case "${1-}" in
    "") ;;
    --tests) packages="$packages $test_packages" ;;
    *) echo "usage: $0 [--tests]" >&2; exit 2 ;;
esac

missing=
for package in $packages; do
    case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)" in
        *" ok installed") ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null; then
    sudo=sudo
else
    echo "$0: root or sudo is needed to install:$missing" >&2
    exit 1
fi
echo "installing:$missing"
$sudo apt-get update -q
# an Ubuntu that debootstrap made knows the section main only; most of these are in universe
. /etc/os-release
if [ "$ID" = ubuntu ] && ! apt-cache show libutf8proc-dev > /dev/null 2>&1; then
    mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*main.*/\2/p' /etc/apt/sources.list | head -n 1)
    echo "adding the section universe of ${mirror:=http://archive.ubuntu.com/ubuntu} to /etc/apt/sources.list.d/universe.list"
    echo "deb $mirror $VERSION_CODENAME universe" | $sudo tee /etc/apt/sources.list.d/universe.list > /dev/null
    $sudo apt-get update -q
fi
# shellcheck disable=SC2086 # a list of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
