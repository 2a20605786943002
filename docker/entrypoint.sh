#!/bin/sh
# What the image runs: influxdb3 with the container's arguments. They may begin with `influxdb3`,
# as in InfluxDB's documentation, and name variables ($HOSTNAME), as its image allows.
#
# It ends in the server itself: no shell stays in between.
set -eu

if [ "${1-}" = influxdb3 ]; then
    shift
fi
# Each argument is taken from the front and put back at the end, so that none is split.
for argument do
    shift
    case $argument in
        *'$'*) argument=$(printf '%s' "$argument" | envsubst) ;;
    esac
    set -- "$@" "$argument"
done
exec /usr/bin/influxdb3 "$@"
