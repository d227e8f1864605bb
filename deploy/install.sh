#!/bin/sh
# Puts perstack-stored in place, for `make install`; deploy/README.md tells what comes where.
#
# A manifest in the program's folder lists every file and folder that was put outside of it, so that
# deploy/uninstall.sh takes away what this version, or the one before, has put, and nothing else.
set -eu

PREFIX=${PREFIX:-/usr/local}
SYSCONFDIR=${SYSCONFDIR:-/etc}
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-/usr/bin/python3}
lib=$PREFIX/lib/perstack-stored
new=$DESTDIR$lib.new
here=$(cd "$(dirname "$0")" && pwd)
umask 022
# Python runs isolated (-I): what lies in the working directory is not imported, the more so as root.

fail() {
    echo "make install: $*" >&2
    exit 1
}

for path in "$PREFIX" "$SYSCONFDIR" "${DESTDIR:-/}"; do
    case $path in
    /*) ;;
    *) fail "PREFIX, SYSCONFDIR and DESTDIR must be absolute paths, not $path" ;;
    esac
done
"$PYTHON" -I -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$PYTHON is not Python 3.11 or newer with its venv module (Debian: python3-venv);" \
        "give another one: make install PYTHON=/path/to/python3"

work=$(mktemp -d)
manifest=$work/manifest
trap 'rm -rf "$work" "$new"' EXIT

folder() { # PATH: make a folder, and note those that were not there
    if [ ! -d "$DESTDIR$1" ]; then
        folder "$(dirname "$1")"
        mkdir "$DESTDIR$1"
        echo "folder $1" >>"$manifest"
    fi
}

# --- the program: a virtual environment with what the lock names, and with neither pip nor scripts to activate it

echo "== building"
"$PYTHON" -I -m venv "$work/tools"
pip() { "$work/tools/bin/python" -I -m pip --disable-pip-version-check -qq "$@"; }
pip install --require-hashes -r "$here/../requirements-build.lock"
pip wheel --no-deps --no-build-isolation --wheel-dir "$work/wheel" "$here/.."
rm -rf "$new"
mkdir -p "$DESTDIR/"
if [ -f "$DESTDIR$lib/manifest" ]; then # folders that an earlier version made
    grep '^folder ' "$DESTDIR$lib/manifest" >"$manifest" || true
fi
folder "$PREFIX/lib"
"$PYTHON" -I -m venv --without-pip "$new"
pip --python "$new/bin/python" install --no-compile --require-hashes -r "$here/../requirements.lock"
pip --python "$new/bin/python" install --no-compile --no-deps --no-index --find-links "$work/wheel" perstack-stored
rm -f "$new"/bin/[Aa]ctivate* "$new/.gitignore"
# It will stand elsewhere than where it was made.
for file in "$new/pyvenv.cfg" "$new"/bin/*; do
    if [ ! -L "$file" ]; then sed -i "s|$new|$lib|g" "$file"; fi
done
# Their checksums were those of before.
sed -i 's|^\(\.\./\.\./\.\./bin/[^,]*\),.*|\1,,|' "$new"/lib/python*/site-packages/*.dist-info/RECORD
"$new/bin/python" -I -m compileall -q -s "$new" -p "$lib" "$new/lib"

# --- everything else

echo "== installing"
put() { # SOURCE PATH: put a file
    folder "$(dirname "$2")"
    install -m 644 "$1" "$DESTDIR$2"
    echo "file $2" >>"$manifest"
}

unit() { # SOURCE PATH TITLE FOLDER SETTINGS SOCKET: put a unit made from its source
    sed -e "s|@PREFIX@|$PREFIX|g" -e "s|@SYSCONFDIR@|$SYSCONFDIR|g" -e "s|@TITLE@|$3|" -e "s|@FOLDER@|$4|g" \
        -e "s|@SETTINGS@|$5|" -e "s|@SOCKET@|$6|" "$here/systemd/$1" >"$work/unit"
    put "$work/unit" "$2"
}

for command in perstack-stored perstack-storectl; do
    folder "$PREFIX/bin"
    ln -sf "$lib/bin/$command" "$DESTDIR$PREFIX/bin/$command"
    echo "file $PREFIX/bin/$command" >>"$manifest"
done

units=$PREFIX/lib/systemd/system
for kind in service socket; do
    unit "perstack-stored.$kind.in" "$units/perstack-stored.$kind" \
        '' perstack-stored perstack-stored perstack-stored.socket
    unit "perstack-stored.$kind.in" "$units/perstack-stored@.$kind" \
        ' (%i)' perstack-stored-%i %i perstack-stored@%i.socket
    unit "user/perstack-stored.$kind.in" "$PREFIX/lib/systemd/user/perstack-stored.$kind" '' '' '' ''
done
for kind in service timer; do
    unit "perstack-stored-backup.$kind.in" "$units/perstack-stored-backup.$kind" \
        '' perstack-stored perstack-stored ''
    unit "perstack-stored-backup.$kind.in" "$units/perstack-stored-backup@.$kind" \
        ' (%i)' perstack-stored-%i %i ''
done
put "$here/systemd/sysusers.conf" "$PREFIX/lib/sysusers.d/perstack-stored.conf"
put "$here/systemd/tmpfiles.conf" "$PREFIX/lib/tmpfiles.d/perstack-stored.conf"
for file in README.md perstack-stored.toml grafana-dashboard.json systemd/network.conf systemd/mirror.conf systemd/replication.conf systemd/inspect.service prometheus/alerts.yml \
    prometheus/scrape.yml; do
    put "$here/$file" "$PREFIX/share/doc/perstack-stored/$(basename "$file")"
done

# From their help, so that they name what this version has.
"$new/bin/python" -I "$here/man.py" "$work/man" >/dev/null
"$new/bin/python" -I "$here/completions.py" "$work/share"
for page in "$work"/man/*.1; do
    put "$page" "$PREFIX/share/man/man1/$(basename "$page")"
done
# Packages have a folder of their own for zsh.
case $PREFIX in
/usr) rm -r "$work/share/zsh/site-functions" ;;
*) rm -r "$work/share/zsh/vendor-completions" ;;
esac
(cd "$work/share" && find . -type f) | sort >"$work/completions"
while read -r file; do
    put "$work/share/$file" "$PREFIX/share/${file#./}"
done <"$work/completions"

# The settings are the operator's from now on: replaced or removed only where nobody has touched them.
settings=$SYSCONFDIR/perstack-stored/perstack-stored.toml
if [ ! -e "$DESTDIR$settings" ] || cmp -s "$DESTDIR$settings" "$DESTDIR$lib/settings"; then
    folder "$(dirname "$settings")"
    install -m 644 "$here/perstack-stored.toml" "$DESTDIR$settings"
fi
install -m 644 "$here/perstack-stored.toml" "$new/settings"
echo "settings $settings" >>"$manifest"

# What an earlier version has put and this one has not.
if [ -f "$DESTDIR$lib/manifest" ]; then
    grep '^file ' "$DESTDIR$lib/manifest" | while read -r _ path; do
        grep -qxF "file $path" "$manifest" || rm -f "$DESTDIR$path"
    done
fi
cp "$manifest" "$new/manifest"
rm -rf "$DESTDIR$lib"
mv "$new" "$DESTDIR$lib"
case $PREFIX in
/usr | /usr/local) ;;
*) echo "systemd does not look in $PREFIX/lib/systemd by itself: systemctl link the units from there" ;;
esac

if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; then
    systemd-sysusers "$PREFIX/lib/sysusers.d/perstack-stored.conf"
    systemd-tmpfiles --create "$PREFIX/lib/tmpfiles.d/perstack-stored.conf"
    systemctl daemon-reload
    cat <<END
perstack-stored $("$lib/bin/perstack-stored" --version | sed 's/.*version //') is installed. To start it:
    systemctl enable --now perstack-stored.service
    usermod --append --groups perstack USER    # for each user that may connect
An older version that still runs is replaced by: systemctl restart perstack-stored.service
END
fi
