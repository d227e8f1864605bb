#!/bin/sh
# For deploy/image.sh: the daemon into a bare folder with Python, and out with what it never reads.
#
# usage: rootfs.sh ROOT; WHEEL, LOCK and PIP (the package's folder) come by the environment.
set -eu

root=$1
ids=10001

# --- users: no package's own script has run

echo "root:x:0:0:root:/root:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
perstack-stored:x:$ids:$ids:Storage daemon for Perstack agents:/var/lib/perstack-stored:/usr/sbin/nologin" >"$root/etc/passwd"
echo "root:x:0:
nogroup:x:65534:
perstack:x:$ids:" >"$root/etc/group"
chmod 644 "$root/etc/passwd" "$root/etc/group"
for folder in var/lib/perstack-stored run/perstack-stored; do
    mkdir -p "$root/$folder"
    chmod 750 "$root/$folder"
    chown "$ids:$ids" "$root/$folder"
done

# --- the daemon, by a pip that does not stay

mkdir "$root/build"
cp -R "$PIP" "$root/build/pip"
cp "$WHEEL" "$LOCK" "$root/build"
cp /etc/resolv.conf "$root/etc/resolv.conf"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$root/build/certificates"
    PIP_CERT=/build/certificates
    export PIP_CERT
fi
# Paths of this machine, which are not in there.
unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR
pip() {
    env PYTHONPATH=/build PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1 PYTHONDONTWRITEBYTECODE=1 \
        chroot "$root" /usr/bin/python3 -m pip -qq --disable-pip-version-check install --no-compile --no-cache-dir "$@"
}
pip --require-hashes -r "/build/$(basename "$LOCK")"
pip --no-deps --no-index "/build/$(basename "$WHEEL")"
rm -r "$root/build" "$root/etc/resolv.conf"

# --- what nobody reads in there; licences stay

find "$root/usr/share/doc" ! -type d ! -name copyright -delete
find "$root/usr/share/doc" -type d -empty -delete
for path in "$root"/usr/share/* "$root"/usr/lib/x86_64-linux-gnu/gconv "$root"/usr/lib/aarch64-linux-gnu/gconv \
    "$root"/usr/lib/x86_64-linux-gnu/perl* "$root"/usr/lib/aarch64-linux-gnu/perl* \
    "$root"/var/cache "$root"/var/lib/apt "$root"/var/lib/dpkg/info "$root"/var/log \
    "$root"/etc/apt "$root"/etc/cron.daily "$root"/etc/dpkg "$root"/etc/logrotate.d "$root"/etc/skel; do
    case $path in
    */doc | */zoneinfo) ;;
    *) rm -rf "$path" ;;
    esac
done
for name in idlelib lib2to3 test tkinter turtledemo pydoc_data ensurepip venv; do
    rm -rf "$root"/usr/lib/python3*/"$name"
done
# Only Python runs here.
find "$root/usr/bin" "$root/usr/sbin" ! -type d ! -name 'python3*' -delete
# It can't be written later, and each process of the daemon is a Python that starts.
for folder in "$root"/usr/lib/python3.* "$root"/usr/local/lib/python3.*; do
    chroot "$root" /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash "${folder#"$root"}"
done
# The container's own are put over it; whoever unpacks it without rights can't make devices.
find "$root/dev" -mindepth 1 -delete
