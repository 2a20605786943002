#!/bin/bash
# Copies what a node has stored into a directory, also while its server runs:
#
#     docs/backup.sh DATA_DIR/NODE_ID TARGET/NODE_ID
#
# To restore, start a server with the same --node-id and --data-dir TARGET, or copy it back first.
# The same target may be used again: only what is new is copied. See docs/operations.md.
set -euo pipefail
export LC_ALL=C

node=$(realpath "${1:?the directory DATA_DIR/NODE_ID}")
target=$(realpath -m "${2:?where the copy goes}")
ROUNDS_MAX=100

[[ -d $node/log ]] || { echo "$node has no log: is it DATA_DIR/NODE_ID?" >&2; exit 1; }

# The files below some directories; a name with # is of an object that is not finished.
files() { (cd "$1" 2>/dev/null && find "${@:2}" -type f ! -name '*#*' 2>/dev/null | sort) || true; }

# Which snapshots there are. As long as these are the same, nothing that they need is removed.
snapshots() { files "$node" snapshots; }

# Objects are never changed, so what is there is there. What is gone by now is not needed.
copy_new() {
    local name new
    new=$(comm -23 - <(files "$target" .  | sed 's|^\./||'))
    [[ -n $new ]] || return 0
    (cd "$node" && xargs -d '\n' cp -p --parents -t "$target" <<<"$new" 2>/dev/null) && return 0
    while read -r name; do
        # In this order: what is gone between the two was not needed either.
        if ! cmp -s "$node/$name" "$target/$name" && [[ -e $node/$name ]]; then
            rm -f "$target/$name"
            echo "cannot copy $node/$name to $target" >&2
            exit 1
        fi
    done <<<"$new"
}

# Listing a directory may miss a new entry and show one that is newer. The second listing has all
# that come before the last of the first one.
log() {
    local last
    last=$(files "$node" log | grep -E '^log/[0-9]+\.entry$' | tail -n 1 || true)
    files "$node" log | grep -E '^log/[0-9]+\.entry$' | awk -v last="$last" '$0 <= last' || true
}

mkdir -p "$target"
# What an interrupted run was copying may be half there.
if [[ -e $target/.copying ]]; then find "$target" -type f -cnewer "$target/.copying" -delete; fi
touch "$target/.copying"
for ((round = 1; round <= ROUNDS_MAX; round++)); do
    before=$(snapshots)
    rm -rf "$target/snapshots"
    files "$node" dbs journals plugins snapshots cluster-uuid | copy_new
    log | copy_new
    if [[ $(snapshots) == "$before" ]]; then
        sync
        rm "$target/.copying"
        echo "copied $node to $target in $round rounds"
        exit 0
    fi
done
echo "the server makes snapshots faster than they can be copied: try again, or stop it" >&2
exit 1
