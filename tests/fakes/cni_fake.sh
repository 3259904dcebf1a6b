#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A CNI plugin that does as its configuration's "fake" says, or, for a command of its own, "fakeADD", "fakeDEL" and so on:
# ok (default), hang, exit1, error, late (an error after 3 s), half, garbage, big, version, busy, once (fails the first time),
# meta (makes two interfaces and names none), tun (one that is not Ethernet). Every call is written
# to "log": command, container, interface, and whether there is a namespace and a previous result. Leases are files in
# "leases": ADD makes one, DEL removes it.
set -u
input=$(cat)
get() {
    printf '%s' "$input" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"
}
log=$(get log) leases=$(get leases)
mode=$(get "fake$CNI_COMMAND")
[ -n "$mode" ] || mode=$(get fake)
prev=no
case $input in *'"prevResult"'*) prev=yes ;; esac
netns=no
[ -z "${CNI_NETNS:-}" ] || netns=yes
[ -z "$log" ] || echo "$CNI_COMMAND ${CNI_CONTAINERID:-} ${CNI_IFNAME:-} netns=$netns prev=$prev" >>"$log"
[ -z "$log" ] || printf '%s\n' "$input" >>"$log.input"
[ -z "$log" ] || printf '%s\n' "${CNI_ARGS:-}" >>"$log.args"
lease=$leases/${CNI_CONTAINERID:-none}.${CNI_IFNAME:-none}
case $CNI_COMMAND in
ADD) [ -z "$leases" ] || : >"$lease" ;;
DEL) [ "$mode" != ok ] && [ -n "$mode" ] || [ -z "$leases" ] || rm -f "$lease" ;;
esac
version=$(get cniVersion)
result='{"cniVersion":"'$version'","interfaces":[],"ips":[{"address":"10.99.0.5/24"}],"dns":{"nameservers":["10.99.0.1"]}}'
case ${mode:-ok} in
ok) ;;
hang) sleep 1000 & wait ;;
exit1)
    echo "words on stderr" >&2
    exit 1
    ;;
error)
    echo '{"cniVersion":"'"$version"'","code":7,"msg":"no subnet","details":"as it was told"}'
    exit 1
    ;;
late)
    sleep 3
    echo '{"cniVersion":"'"$version"'","code":7,"msg":"no subnet","details":"as it was told"}'
    exit 1
    ;;
busy)
    echo '{"cniVersion":"'"$version"'","code":11,"msg":"try again later"}'
    exit 1
    ;;
half)
    echo '{"cniVersion":"'"$version"'","ips":[{"addr'
    exit 0
    ;;
garbage)
    head -c 4096 /dev/urandom
    exit 0
    ;;
big)
    head -c 10000000 /dev/zero | tr '\0' ' '
    exit 0
    ;;
meta)
    # shellcheck disable=SC2016 # expanded by the inner shell
    [ "$CNI_COMMAND" != ADD ] || nsenter --net="$CNI_NETNS" sh -ec 'ip link add net1 type veth peer name p1
        ip link add eth0 type veth peer name p0
        for i in eth0 p0 net1 p1; do ip link set $i up; done
        ip addr add 10.99.0.5/24 dev eth0
        ip addr add 10.98.0.5/24 dev net1'
    ;;
tun)
    [ "$CNI_COMMAND" != ADD ] || nsenter --net="$CNI_NETNS" ip tuntap add dev eth0 mode tun
    ;;
version) result='{"cniVersion":"9.9.9"}' ;;
crash) kill -SEGV $$ ;;
once)
    if [ ! -e "$log.once" ]; then
        : >"$log.once"
        echo '{"cniVersion":"'"$version"'","code":7,"msg":"not the first time"}'
        exit 1
    fi
    [ "$CNI_COMMAND" != DEL ] || rm -f "$lease"
    ;;
esac
case $CNI_COMMAND in
ADD) echo "$result" ;;
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}' ;;
esac
exit 0
