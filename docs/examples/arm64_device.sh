#!/usr/bin/env bash
# An arm64 Debian, computed by qemu on this machine and reached over ssh: how to try edgevit's way to a board without one.
# As root on Debian:
#   apt install debootstrap qemu-user-static openssh-server
#   docs/examples/arm64_device.sh make FOLDER             Debian with Python and ONNX Runtime; some ten minutes
#   docs/examples/arm64_device.sh serve FOLDER PORT       sshd on 127.0.0.1 whose sessions are inside; keys beside FOLDER
#   docs/examples/arm64_device.sh stop FOLDER             what `serve` mounted is unmounted
# PYTHON is the python3 whose pip fetches the packages; ENGINE is what it fetches, PYTHON_THERE the version inside.
set -euo pipefail
SUITE=bookworm
PYTHON_THERE=3.11 # of that suite
PYTHON=${PYTHON:-python3}
ENGINE=${ENGINE:-onnxruntime}
BINFMT=/proc/sys/fs/binfmt_misc

# The kernel starts qemu for arm64 programs. A container's kernel may know already; Debian's package brings the line.
register() {
    [[ -e $BINFMT/register ]] || mount -t binfmt_misc binfmt_misc $BINFMT
    [[ -e $BINFMT/qemu-aarch64 ]] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$BINFMT/register
}

# pip runs here and fetches what is for there: under emulation it would take minutes.
install_engine() {
    local packages="$1/usr/local/lib/python$PYTHON_THERE/dist-packages" tags=() tag
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
        tags+=(--platform "${tag}_aarch64")
    done
    "$PYTHON" -m pip install --quiet --target "$packages" --upgrade "${tags[@]}" \
        --python-version "$PYTHON_THERE" --implementation cp --only-binary :all: "$ENGINE"
}

make_userland() {
    [[ ! -e $1 ]] || { echo "$1 exists already" >&2; exit 1; }
    register
    debootstrap --arch=arm64 --variant=minbase --include=python3 "$SUITE" "$1.partial" http://deb.debian.org/debian
    install_engine "$1.partial"
    mv "$1.partial" "$1"
}

serve() {
    local folder keys="$1.keys"
    folder=$(realpath "$1")
    register
    mountpoint -q "$folder/proc" || mount -t proc proc "$folder/proc"
    mkdir -p -m 755 "$keys" /run/sshd
    [[ -e $keys/host_key ]] || ssh-keygen -q -t ed25519 -N '' -C arm64-host -f "$keys/host_key"
    [[ -e $keys/user_key ]] || ssh-keygen -q -t ed25519 -N '' -C arm64-user -f "$keys/user_key"
    echo "[127.0.0.1]:$2 $(cat "$keys/host_key.pub")" >"$keys/known_hosts"
    keys=$(realpath "$keys")
    # Not ChrootDirectory, which wants every folder above it closed to others: /tmp is not.
    exec /usr/sbin/sshd -D -e -f /dev/null -p "$2" -o ListenAddress=127.0.0.1 -o HostKey="$keys/host_key" \
        -o AuthorizedKeysFile="$keys/user_key.pub" -o PidFile=none -o StrictModes=no -o PasswordAuthentication=no \
        -o KbdInteractiveAuthentication=no -o PermitRootLogin=prohibit-password \
        -o "ForceCommand=exec chroot $(printf %q "$folder") /bin/sh -c \"\$SSH_ORIGINAL_COMMAND\""
}

case "${1:-} $#" in
    "make 2") make_userland "$2" ;;
    "serve 3") serve "$2" "$3" ;;
    "stop 2") umount "$2/proc" ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
