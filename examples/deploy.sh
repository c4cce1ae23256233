#!/bin/sh
# A deploy that is called by every push: one runs, one waits, the rest are done as soon as that one begins: it carries
# their change too.
#
#   deploy.sh CHECKOUT LIVE
set -eu

if [ $# -ne 2 ]; then
  echo "usage: $0 CHECKOUT LIVE" >&2
  exit 64
fi

if ! exclusive held "deploy to $2"; then
  exec exclusive run --if-held coalesce --label "$(basename "$1")" "deploy to $2" -- "$0" "$@"
fi

# What is newest is read here, under the lock: not when the push came.
version=$(cat "$1/version")
release="$2/releases/$version"
mkdir -p "$2/releases"
rm -rf "$release"
cp -R "$1" "$release"
ln -sfn "$release" "$2/current.new"
mv -T "$2/current.new" "$2/current"
echo "deployed $version"
