# shellcheck shell=bash
# Where things lie on this machine; sourced by the scripts.

# Print the folder that keeps what is built once (made if missing).
ganymede_cache() {
    local cache=${GANYMEDE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ganymede}
    mkdir -p "$cache"
    echo "$cache"
}

# Print the path of the machine's bundle of certificate authorities.
ganymede_ca_bundle() {
    local bundle
    for bundle in "${GANYMEDE_CA_BUNDLE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        if [[ -n $bundle && -r $bundle ]]; then
            readlink -f "$bundle"
            return
        fi
    done
    echo "No bundle of certificate authorities: install the package ca-certificates, or name the file in GANYMEDE_CA_BUNDLE." >&2
    return 1
}
