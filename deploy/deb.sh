#!/bin/sh
# Makes a Debian package in dist/ from the source archive there, for `make deb`.
#
# usage: deb.sh SDIST FOLDER
#
# It is for the distribution, Python and architecture of the machine that builds it: its name says so.
set -eu

sdist=$1
out=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)

for tool in dh dpkg-buildpackage fakeroot; do
    command -v "$tool" >/dev/null || {
        echo "make deb: $tool is missing; as root: apt-get install debhelper dpkg-dev fakeroot python3-venv" >&2
        exit 1
    }
done

# shellcheck disable=SC1091
. /etc/os-release
version=$(basename "$sdist" .tar.gz | sed 's/^perstack_stored-//')
# 1.0.0rc1 comes before 1.0.0. A later release of the distribution comes after: its upgrade brings its package.
full=$(echo "$version" | sed -E 's/(a|b|rc|\.dev)/~\1/')-1+$ID$VERSION_ID
maintainer="${DEBFULLNAME:-perstack-stored} <${DEBEMAIL:-maintainers@perstack-stored.invalid}>"
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || date +%s)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$sdist" -C "$work"
cd "$work/perstack_stored-$version"
cp -R "$here/debian" debian
sed -i "s/@MAINTAINER@/$maintainer/" debian/control
cat >debian/changelog <<END
perstack-stored ($full) unstable; urgency=medium

  * Release $version. changelog.gz beside this file lists the changes.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$epoch")
END
SOURCE_DATE_EPOCH=$epoch dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
cp "$work"/perstack-stored_*.deb "$out"
ls "$work"/perstack-stored_*.deb | sed "s|$work|dist|"
