# shellcheck shell=bash
# What must be on the machine before Python can take over: packages of the distribution and a running Docker.
# Sourced by scripts/demo and scripts/test after paths.sh.

fail() {
    echo "$*" >&2
    exit 1
}

# Print the name of a Python that is new enough for the control node and can make virtual environments.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

has_browser() {
    [[ -x ${GANYMEDE_CHROMIUM:-} ]] || command -v chromium >/dev/null
}

# A client alone (a command without dockerd) does when there is an engine elsewhere that it reaches.
has_docker() {
    command -v docker >/dev/null && { command -v dockerd >/dev/null || ((EUID != 0)) || docker_answers; }
}

# Print the packages that are missing, one on each line; with the argument `browser` those of the walk, too.
missing_packages() {
    if [[ ${1:-} == browser ]] && ! has_browser; then
        printf '%s\n' chromium fonts-dejavu-core
    fi
    [[ -r /etc/ssl/certs/ca-certificates.crt || -r ${GANYMEDE_CA_BUNDLE:-} ]] || echo ca-certificates
    find_python >/dev/null || printf '%s\n' python3 python3-venv
    if ! has_docker; then
        echo docker.io
        # Debian 13 has the client in a package of its own.
        ! apt-cache show docker-cli >/dev/null 2>&1 || echo docker-cli
    fi
    # Makes the base image where no image registry answers; an ordinary user may do without.
    if ((EUID == 0)) && ! command -v mmdebstrap >/dev/null; then
        printf '%s\n' mmdebstrap debian-archive-keyring
    fi
}

install_packages() {
    local missing log
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null ||
        fail "Missing here and to be installed by hand, as this is not Debian or Ubuntu: ${missing[*]}."
    ((EUID == 0)) ||
        fail "Missing here: run 'apt-get install ${missing[*]}' as root, or scripts/demo as root once."
    log=$(ganymede_cache)/apt.log
    echo "Installing with apt-get: ${missing[*]}"
    if apt-get update >"$log" 2>&1; then
        # The list can be longer now that the index is there.
        mapfile -t missing < <(missing_packages "$@")
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}" >>"$log" 2>&1 ||
        fail "apt-get could not install ${missing[*]}: mend what the end of $log says and call this again."
}

docker_answers() {
    timeout 20 docker info >/dev/null 2>&1
}

# A Docker that runs already is used as it is.
start_docker() {
    local log
    ! docker_answers || return 0
    ((EUID == 0)) ||
        fail "Docker does not answer: ask an administrator to start it (systemctl start docker) and to add you to the group docker."
    log=$(ganymede_cache)/dockerd.log
    if [[ -d /run/systemd/system ]]; then
        echo "Starting Docker: systemctl start docker"
        systemctl start docker >"$log" 2>&1 || fail "systemctl could not start docker: see journalctl --unit docker."
    else
        echo "Starting Docker: dockerd (its log: $log)"
        remove_stale_pid_file /var/run/docker.pid
        # Lock files of this script must not stay open in the daemon.
        setsid dockerd >"$log" 2>&1 </dev/null 8>&- 9>&- &
    fi
    for _ in {1..60}; do
        ! docker_answers || return 0
        sleep 1
    done
    fail "Docker did not start within a minute: mend what the end of $log says and call this again."
}

# dockerd refuses to start when the number in its file belongs to any live process, as it does after a restart
# of the machine without a service manager.
remove_stale_pid_file() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] || rm -f "$1"
}

# Usage: bootstrap base|browser
bootstrap() {
    exec 9>"$(ganymede_cache)/bootstrap.lock"
    flock 9
    if [[ ${1:-} == browser ]] && ! has_browser && ! grep --quiet '^ID=debian' /etc/os-release; then
        fail "The browser test needs Chromium, which is no ordinary package here: install it and name it in GANYMEDE_CHROMIUM."
    fi
    install_packages "$@"
    start_docker
    exec 9>&-
}
