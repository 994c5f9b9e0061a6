# Sourced by the other scripts: finds a program, or installs it, or says what is missing.

tool() { # command, Debian package or "", what it is
    command -v "$1" >/dev/null && return
    if [ -n "$2" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $2" >&2
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2") >/dev/null 2>&1 || true
    fi
    if ! command -v "$1" >/dev/null; then
        echo "$1 is missing: install $3" >&2
        exit 1
    fi
}
