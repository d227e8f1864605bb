#!/bin/sh
# Makes a container image in dist/ from the wheel there, for `make image`. It needs no Docker daemon, but root.
#
# usage: image.sh WHEEL FOLDER PYTHON
#
# FORMAT=oci (the default) or docker, which can hold the health check. SUITE: Debian's release that Python comes from.
# PYTHON: one with pip, which is copied into the build.
set -eu

wheel=$(realpath "$1")
out=$(realpath "$2")
python=$3
here=$(cd "$(dirname "$0")" && pwd)
format=${FORMAT:-oci}
suite=${SUITE:-trixie}
mirror=${MIRROR:-http://deb.debian.org/debian}

fail() {
    echo "make image: $*" >&2
    exit 1
}
case $format in oci | docker) ;; *) fail "FORMAT is oci or docker, not $format" ;; esac
[ "$(id -u)" = 0 ] || fail "it must be run as root"
for tool in mmdebstrap buildah; do
    command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install --no-install-recommends mmdebstrap buildah"
done

version=$(basename "$wheel" | cut -d - -f 2)
arch=$(dpkg --print-architecture)
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || date +%s)}
name=perstack-stored-$version-$arch.$format.tar

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PIP=$("$python" -c 'import os, pip; print(os.path.dirname(pip.__file__))')
export WHEEL="$wheel" LOCK="$here/../requirements.lock" PIP SOURCE_DATE_EPOCH="$epoch"
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
}
# Only unpacked: no package's script runs, and nothing comes that only those need.
quietly mmdebstrap --quiet --mode=root --variant=extract --include=python3,libstdc++6,base-files,netbase,tzdata \
    "$suite" "$work/rootfs" "$mirror"
quietly "$here/image/rootfs.sh" "$work/rootfs"
# An archive, since it keeps owners.
mkdir "$work/context"
tar -C "$work/rootfs" --sort=name --mtime="@$epoch" --clamp-mtime --numeric-owner -cf "$work/context/rootfs.tar" .
cp "$here/image/Containerfile" "$work/context"
store() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
quietly store bud --quiet --isolation chroot --format "$format" --timestamp "$epoch" --build-arg "VERSION=$version" \
    --tag "perstack-stored:$version" "$work/context"
rm -f "$out/$name"
if [ "$format" = oci ]; then
    quietly store push --quiet "perstack-stored:$version" "oci:$work/oci:perstack-stored:$version"
    tar -C "$work/oci" --sort=name --mtime="@$epoch" --numeric-owner --owner=0 --group=0 -cf "$out/$name" .
else
    quietly store push --quiet "perstack-stored:$version" "docker-archive:$out/$name:perstack-stored:$version"
fi
echo "dist/$name"
