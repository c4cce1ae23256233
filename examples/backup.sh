#!/bin/sh
# A nightly backup that never overlaps with itself, keeps seven archives, and leaves no half-written one behind.
#
#   0 3 * * *  /opt/examples/backup.sh /srv/data /srv/backup
#
# Cron mails what is on stderr: nothing when all is well, a line when the last backup still runs (exit status 75).
set -eu

if [ $# -ne 2 ]; then
  echo "usage: $0 SOURCE TARGET" >&2
  exit 64
fi

# Run this script again, under a lock that belongs to the target: two backups to different places may overlap.
if ! exclusive held "backup of $2"; then
  exec exclusive run --exec --label "$1" "backup of $2" -- "$0" "$@"
fi

mkdir -p "$2"
archive="$2/$(date +%Y-%m-%dT%H%M%S).tar.gz"
trap 'rm -f "$archive.part"' EXIT
tar -C "$1" -czf "$archive.part" .
mv "$archive.part" "$archive"

# shellcheck disable=SC2012 # the names are ours
ls -1 "$2"/*.tar.gz | sort -r | tail -n +8 | xargs -r rm -f
