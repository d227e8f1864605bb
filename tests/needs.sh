#!/usr/bin/env bash
# Sees to what the tests need of the machine: Debian's packages by name; with "release" what make release and make test-release need too. As root on Debian it installs what is missing. Elsewhere it
# names what is missing and how to get it; the tests that need it are skipped then, except in CI, where nothing may be skipped.
set -euo pipefail

missing=()
need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null || missing+=("$2")
}
need gcc gcc
need node nodejs
need npm npm
need zsh zsh # completion of the client's command
need fish fish
need mandoc mandoc # the man pages
need chromium-headless-shell chromium-headless-shell # the page of the inspector
[[ -e /usr/include/zmq.h ]] || missing+=(libzmq3-dev) # the client in C
[[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)
# `make install` is tried with the system's own Python.
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if ((EUID == 0)); then # these tests mount images, boot containers and change users
    need mkfs.ext4 e2fsprogs
    need mkfs.xfs xfsprogs
    need chattr e2fsprogs
    need mount mount
    need prlimit util-linux
    need setpriv util-linux
    need mmdebstrap mmdebstrap
    need systemd-nspawn systemd-container
    need systemd-analyze systemd
    need promtool prometheus
fi
if [[ ${1:-} == release ]]; then
    need dh debhelper
    need dpkg-buildpackage dpkg-dev
    need fakeroot fakeroot
    need lintian lintian
    need buildah buildah
    need skopeo skopeo
    need umoci umoci
    need runc runc
fi
((${#missing[@]})) || exit 0

mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
if ((EUID == 0)) && command -v apt-get >/dev/null; then
    echo "== installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
    exit 0
fi
echo "== missing here: ${missing[*]}. Tests that need them are skipped. To get them: sudo apt-get install ${missing[*]}"
[[ -z ${CI:-} ]]
