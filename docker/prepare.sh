#!/bin/sh
# Prepares the plugins' virtual environment while the image is built, so that the first trigger of
# a container needs no network: starts a server once, which does that before it is ready, and ends
# it in order. An image in which no server starts is not built.
set -eu

ready=$(mktemp -d)/address
influxdb3 serve --node-id prepare --object-store memory --without-auth \
    --http-bind 127.0.0.1:0 --tcp-listener-file-path "$ready" &
server=$!
while [ ! -s "$ready" ]; do
    # A server that fails has said why.
    kill -0 "$server" || exit 1
    sleep 0.2
done
kill -TERM "$server"
wait "$server"
rm -r "$(dirname "$ready")"
