# Debian packages that NovaCron needs, and how they come. Sourced by ./up and ./test (POSIX sh).

RUN_PACKAGES="qemu-system-x86 qemu-utils busybox-static e2fsprogs ovmf genisoimage iproute2 kmod cpio dpkg tzdata g++ cmake make python3 python3-dev python3-venv python3-pip git ca-certificates"
TEST_PACKAGES="chromium prometheus"

# Packages of "$@" that are not installed, on one line.
missing_packages() {
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
    done
}

# Install what is missing of "$@" when root, else say the exact line and fail.
install_packages() {
    missing=$(missing_packages "$@")
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "Missing Debian packages. Run this as root, then try again:" >&2
        echo "    apt-get install --yes --no-install-recommends $missing" >&2
        return 1
    fi
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -qq $missing >/dev/null
}

# The path of uv: the one on PATH, else one of our own in .uv.
find_uv() {
    if command -v uv >/dev/null 2>&1; then
        command -v uv
    elif [ -x .uv/bin/uv ]; then
        echo .uv/bin/uv
    fi
}

# Make the environment from the lock file.
make_environment() {
    uv=$(find_uv)
    if [ -z "$uv" ]; then
        python3 -m venv .uv
        .uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'
        uv=.uv/bin/uv
    fi
    "$uv" sync --locked --quiet --python-preference only-system "$@"
}
