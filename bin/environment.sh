# Sourced by bin/minirelu and bin/test, which set $bin to this folder: makes a private environment (.venv in the checkout) on
# first use and sets $python to its interpreter. Needs Python 3.10 or newer and a package index.
#
#   prepare EXTRAS     EXTRAS is "" or something like "[test]"

root=$(CDPATH= cd -- "$bin/.." && pwd)
python=$root/.venv/bin/python

find_python() {
    if [ -n "$MINIRELU_PYTHON" ]; then
        set -- "$MINIRELU_PYTHON"
    else
        set -- python3 python python3.13 python3.12 python3.11 python3.10
    fi
    for candidate; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "minirelu: no Python 3.10 or newer found; install one, or name it in MINIRELU_PYTHON" >&2
    return 1
}

prepare() {
    # What is installed is written down last, so that an interrupted set-up is not taken for a
    # finished one; it names the checkout's place and the requirements, so that moving the one or
    # changing the other sets up anew.
    ready="$root/.venv/ready$1"
    wanted="$root $(cksum <"$root/setup.cfg")"
    if [ -x "$python" ] && [ -f "$ready" ] && [ "$(cat "$ready")" = "$wanted" ]; then
        return
    fi
    base=$(find_python) || exit 2
    echo "minirelu: setting up a private environment${1:+ for $1} in $root/.venv (once; about a minute) ..." >&2
    if [ -f "$root/.venv/making" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$root/.venv"
        if ! "$base" -m venv "$root/.venv" >&2; then
            rm -rf "$root/.venv"
            echo "minirelu: $base cannot make virtual environments; install its venv package" >&2
            exit 2
        fi
    fi
    : >"$root/.venv/making"
    if ! "$python" -m pip install --quiet --disable-pip-version-check -e "$root$1" >&2; then
        echo "minirelu: the set-up failed (see above); run the same command again to retry" >&2
        exit 2
    fi
    rm "$root/.venv/making"
    echo "$wanted" >"$ready"
    echo "minirelu: set up." >&2
}
