#!/bin/sh
# Takes away what deploy/install.sh has put, for `make uninstall`: what is stored, settings that were
# changed, user and group stay.
set -eu

PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
lib=$DESTDIR$PREFIX/lib/perstack-stored

if [ ! -f "$lib/manifest" ]; then
    echo "make uninstall: nothing is installed in $lib" >&2
    exit 1
fi
live=no
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; then
    live=yes
    running=$(systemctl list-units --plain --no-legend --state=active 'perstack-stored*.service' \
        'perstack-stored*.socket' 'perstack-stored*.timer' | cut -d ' ' -f 1 | tr '\n' ' ')
    if [ -n "$running" ]; then
        echo "make uninstall: these run; first: systemctl disable --now $running" >&2
        exit 1
    fi
fi

settings() { # PATH: remove it if it is as it was put
    if cmp -s "$DESTDIR$1" "$lib/settings"; then
        rm -f "$DESTDIR$1"
    elif [ -e "$DESTDIR$1" ]; then
        echo "kept, since it was changed: $DESTDIR$1"
    fi
}

while read -r kind path; do
    case $kind in
    file) rm -f "$DESTDIR$path" ;;
    settings) settings "$path" ;;
    esac
done <"$lib/manifest"
# The deepest first; what is not empty by now holds something that is not ours.
folders=$(sed -n 's/^folder //p' "$lib/manifest" | sort -ru)
rm -rf "$lib"
echo "$folders" | while read -r path; do
    if [ -n "$path" ]; then rmdir "$DESTDIR$path" 2>/dev/null || true; fi
done
if [ "$live" = yes ]; then systemctl daemon-reload; fi
