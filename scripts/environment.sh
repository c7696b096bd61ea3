# shellcheck shell=sh disable=SC2154
# Sourced by the scripts beside it, which set `root` to the checkout: makes $root/.venv and installs the package there.
#
#   make_environment run            what the commands need
#   make_environment test           what the tests need, too
#   make_environment test FOLDER    the same in another folder
#
# A second call is instant as long as the locks and pyproject.toml stay as they are.

script=$(basename -- "$0")

fail() {
    echo "scripts/$script: $*" >&2
    exit 1
}

# The newest Python that the tests have seen, on PATH or kept by pyenv, which shows only those that it is told to;
# $PYTHON goes before all others. From Python 3.12 on, measuring coverage takes next to no time.
find_python() {
    kept=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 "$kept"/3.13.*/bin/python python3.12 "$kept"/3.12.*/bin/python \
        python3.11 "$kept"/3.11.*/bin/python python3.14 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>/dev/null) || found="none"
    fail "Python 3.11 or later is needed, but found: $found." \
        "Install one (Debian and Ubuntu: apt install python3 python3-venv) or set PYTHON to its path."
}

says() {
    printf '%s\n' "$messages" | grep -qiE "$1"
}

# Say in one sentence why an installation failed whose messages are in file $1.
explain_failure() {
    messages=$(cat "$1")
    rm -f "$1"
    printf '%s\n' "$messages" | grep -v '^WARNING' | tail -n 12 >&2
    if says 'no space left|disk quota'; then
        fail "the disk is full: the installation needs about 2 GB in $root; free some space and run it again."
    elif says 'permission denied|read-only file system'; then
        fail "$environment cannot be written; change the rights of $root or clone to another place."
    elif says 'do not match the hashes'; then
        fail "a downloaded package is not the one that the lock file names; nothing of it was installed."
    elif says 'no matching distribution|connection|timed out|retr|resolution|unreachable|proxy|ssl'; then
        fail "packages could not be downloaded: check the network and pip's settings (pip config list) and run it again."
    fi
    fail "the installation failed for the reason above."
}

make_environment() {
    environment=${2:-$root/.venv}
    python="$environment/bin/python"
    lock="$root/requirements.lock"
    [ "$1" = test ] && lock="$root/requirements-test.lock"
    # With the path, because an environment that was moved with its checkout must be installed anew.
    fingerprint="$(cat "$lock" "$root/requirements-build.lock" "$root/pyproject.toml" | cksum) $environment"
    stamp="$environment/installed-for-$1"
    if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ]; then
        return
    fi
    if [ "$1" = run ] && [ -e "$environment/installed-for-test" ]; then
        # The tests' environment holds all that the commands need.
        make_environment test "$environment"
        return
    fi

    log=$(mktemp "${TMPDIR:-/tmp}/cxr-jax-install.XXXXXX") || fail "no temporary file could be made: is the disk full?"
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        base=$(find_python) || exit 1
        echo "Making $environment with $("$base" --version) ..."
        "$base" -m venv --clear "$environment" >"$log" 2>&1 || {
            if grep -qi 'ensurepip' "$log"; then
                fail "Python's venv module is incomplete: install it (Debian and Ubuntu: apt install python3-venv)."
            fi
            explain_failure "$log"
        }
    fi
    echo "Installing $(grep -c '==' "$lock") packages into $environment; the first time takes some minutes ..."
    rm -f "$environment/installed-for-run" "$environment/installed-for-test"
    # The locks are complete, so pip need not look for dependencies; build tools come first, as they build the rest.
    {
        pip_install --require-hashes --only-binary :all: -r "$root/requirements-build.lock" &&
            pip_install --require-hashes --no-build-isolation --use-pep517 -r "$lock" &&
            pip_install --no-build-isolation --no-index --editable "$root"
    } 2>"$log" || explain_failure "$log"
    echo "$fingerprint" >"$stamp" || fail "the disk is full."
    rm -f "$log"
}

# Print what a lock says of the packages that are named: locked FILE PACKAGE ...
locked() {
    lock=$1
    shift
    awk -v named=" $* " '/^[^ ]/ { split($1, entry, "=="); told = index(named, " " entry[1] " ") } told' "$lock"
}

pip_install() {
    "$python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps "$@"
}
