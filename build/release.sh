#!/bin/sh
# The steps of .github/workflows/release.yml that are more than one command. Each runs on any machine:
#
#   build/release.sh check-tag TAG            is this the tag of the version in package.json and CHANGELOG.md?
#   build/release.sh self-test DIR [TARGET]   installs the release in DIR, checks the binary, and takes a lock
#   build/release.sh publish-npm DIR          publishes the npm packages in DIR, those of the platforms first, with NPM_TOKEN
#
# A second publish-npm goes on where the first one failed.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' package.json)

fail() {
  printf 'release.sh: %s\n' "$*" >&2
  exit 1
}

check_tag() {
  [ "$1" = "v$version" ] || fail "the tag is $1, the version in package.json $version"
  grep -q "^## $version" CHANGELOG.md || fail "CHANGELOG.md has no section $version"
  ! grep -q "^## $version (unreleased)" CHANGELOG.md || fail "CHANGELOG.md calls $version unreleased"
}

self_test() {
  prefix=$(mktemp -d)
  trap 'rm -rf "$prefix"' EXIT
  sh "$1/install.sh" --from "$1" --prefix "$prefix" ${2:+--target "$2"}
  "$prefix/bin/exclusive" doctor --self
  [ "$("$prefix/bin/exclusive" run --dir "$prefix" release -- echo locked)" = locked ] || fail 'no lock was taken'
}

publish_npm() {
  # A version such as 1.0.0-rc.1 is not what `npm install exclusiveprocess` gets, once there is a 1.0.0.
  case $version in *-*) tag=next ;; *) tag=latest ;; esac
  settings=$(mktemp)
  trap 'rm -f "$settings"' EXIT
  registry=$(npm config get registry)
  printf '%s:_authToken=%s\n' "${registry#http*:}" "$NPM_TOKEN" >"$settings"
  for package in "$1"/linux-* "$1"/macos-* "$1"/exclusiveprocess; do
    name=$(sed -n 's/^  "name": "\(.*\)",$/\1/p' "$package/package.json")
    if [ "$(npm view "$name@$version" version 2>/dev/null)" = "$version" ]; then
      echo "$name@$version is there"
      continue
    fi
    npm publish "$package" --userconfig "$settings" --access public --tag "$tag" ${GITHUB_ACTIONS:+--provenance}
  done
}

case ${1-} in
  check-tag) check_tag "$2" ;;
  self-test) self_test "$2" "${3-}" ;;
  publish-npm) publish_npm "$2" ;;
  *) fail 'which step? check-tag, self-test or publish-npm' ;;
esac
