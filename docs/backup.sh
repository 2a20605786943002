#!/bin/bash
# Copies what a node has stored into a directory, also while its server runs:
#
#     docs/backup.sh DATA_DIR/NODE_ID TARGET/NODE_ID
#
# To restore, start a server with the same --node-id and --data-dir TARGET, or copy it back first.
# The same target may be used again: only what is new is copied. See docs/operations.md.
set -euo pipefail

node=${1:?the directory DATA_DIR/NODE_ID} target=${2:?where the copy goes}
ROUNDS_MAX=100

[[ -d $node/log ]] || { echo "$node has no log: is it DATA_DIR/NODE_ID?" >&2; exit 1; }

# Which snapshots there are. As long as these are the same, nothing that they need is removed.
snapshots() { ls "$node/snapshots" 2>/dev/null | grep '\.snapshot$' || true; }

# Objects are never changed, so what is there is there. What is gone by now is not needed.
copy_file() {
    [[ -e $target/$1 ]] && return
    mkdir -p "$(dirname "$target/$1")"
    if cp -p "$node/$1" "$target/$1.part" 2>/dev/null; then
        mv "$target/$1.part" "$target/$1"
    elif [[ -e $node/$1 ]]; then
        echo "cannot copy $node/$1 to $target" >&2
        exit 1
    fi
}

# A name with # is of an object that is not finished.
copy_directory() {
    [[ -d $node/$1 ]] || return 0
    (cd "$node" && find "$1" -type f ! -name '*#*') | while read -r file; do copy_file "$file"; done
}

# Listing a directory may miss a new entry and show one that is newer. The second listing has all
# that come before the last of the first one.
copy_log() {
    local last entry
    last=$(ls "$node/log" | grep '\.entry$' | tail -n 1 || true)
    for entry in $(ls "$node/log" | grep '\.entry$' || true); do
        [[ $entry > $last ]] || copy_file "log/$entry"
    done
}

for ((round = 1; round <= ROUNDS_MAX; round++)); do
    before=$(snapshots)
    rm -rf "$target/snapshots"
    for directory in dbs journals plugins snapshots; do copy_directory "$directory"; done
    copy_log
    copy_file cluster-uuid
    if [[ $(snapshots) == "$before" ]]; then
        sync
        echo "copied $node to $target in $round rounds"
        exit 0
    fi
done
echo "the server makes snapshots faster than they can be copied: try again, or stop it" >&2
exit 1
