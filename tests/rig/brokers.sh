#!/usr/bin/env bash
# Installs what the tests start: brokers.sh [3.10] [4.3] [PACKAGE…]. Quick when all is there. Says first what it will do.
#
# 3.10 stands for the distribution's own RabbitMQ (3.10 in Debian 12). 4.3 is that of a later Debian, in a folder of its own
# under $AMQP_BRIDGE_BROKERS (default ~/.cache/amqp-bridge); it needs root, debootstrap and the archive that this machine's
# apt uses. Where 4.3 cannot be had, that is an error in CI only: the tests say what they did not run against.
set -euo pipefail

cache=${AMQP_BRIDGE_BROKERS:-$HOME/.cache/amqp-bridge}
server=usr/lib/rabbitmq/bin/rabbitmq-server
export DEBIAN_FRONTEND=noninteractive

say() { printf '%s\n' "$*" >&2; }

install_packages() {
    say "Installing with apt: $*"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "That needs root and Debian's apt. Install $* yourself (sudo apt-get install $*), then try again."
        return 1
    fi
    apt-get update -qq
    LC_ALL=C apt-get install --assume-no --no-install-recommends "$@" 2>/dev/null | grep -E '^(Need to get|After this)' >&2 || true
    apt-get install -qq --yes --no-install-recommends "$@" >/dev/null ||
        { say "apt could not install them, see above. This needs a network, once, or a mirror that apt is configured for."; return 1; }
}

install_distribution() {
    [ -e "/$server" ] && return
    say "There is no RabbitMQ on this machine: installing the distribution's, in about half a minute. Its service is not started."
    local policy=/usr/sbin/policy-rc.d ours=
    if [ "$(id -u)" = 0 ] && [ ! -e $policy ]; then
        ours=1
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
    fi
    install_packages rabbitmq-server && local status=0 || status=1
    [ -z "$ours" ] || rm -f $policy
    if [ $status = 0 ] && [ -d /run/systemd/system ]; then systemctl disable --quiet rabbitmq-server; fi
    return $status
}

install_4_3() {
    local folder=$cache/rabbitmq-4.3 archive codename
    [ -e "$folder/$server" ] && return
    say "Installing RabbitMQ 4.3 into $folder (about a minute, 520 MB)."
    [ "$(id -u)" = 0 ] || { say "That needs root."; return 1; }
    command -v debootstrap >/dev/null || install_packages debootstrap || return 1
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # apt's own placeholders
    archive=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$codename" '$1 == release { print $2; exit }')
    [ -n "$archive" ] || { say "apt's sources name no archive for $codename."; return 1; }
    rm -rf "$folder.partial"
    mkdir -p "$cache"
    # In a mount namespace of its own: /proc and /dev are bound for as long as this takes, and never left behind.
    unshare --mount bash -c '
        set -euo pipefail
        root=$1
        debootstrap --variant=minbase --include=ca-certificates forky "$root" "$2" /usr/share/debootstrap/scripts/sid
        printf "#!/bin/sh\nexit 101\n" >"$root/usr/sbin/policy-rc.d"
        chmod 755 "$root/usr/sbin/policy-rc.d"
        mount --bind /proc "$root/proc"
        mount --bind /dev "$root/dev"
        chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update
        chroot "$root" apt-get install --yes --no-install-recommends rabbitmq-server
        chroot "$root" apt-get clean
    ' bash "$folder.partial" "$archive" >"$cache/rabbitmq-4.3.log" 2>&1 ||
        { say "It failed; the last lines of $cache/rabbitmq-4.3.log:"; tail -5 "$cache/rabbitmq-4.3.log" >&2; return 1; }
    mv "$folder.partial" "$folder"
}

packages=()
for wanted in "$@"; do
    case $wanted in
        3.10) install_distribution ;;
        4.3)
            if ! install_4_3; then
                say "RabbitMQ 4.3 cannot be had here; the tests will not run against it."
                [ "${CI:-}" != true ] || exit 1
            fi
            ;;
        *) packages+=("$wanted") ;;
    esac
done
[ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
