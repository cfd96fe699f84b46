#!/usr/bin/env bash
# Builds the release files for amd64 and arm64: *.deb, *.rpm and sockwatch-oci.tar.
#
#   deploy/package.sh OUT
#
# It needs Go, and the network once, for the modules. Two builds of one commit are
# byte-identical: all timestamps are $SOURCE_DATE_EPOCH, by default the time of the commit.
#
#   ARCHES      "amd64 arm64"; fewer for a quick look
#   MAINTAINER  of the packages, "NAME <ADDRESS>"
set -euo pipefail
if [ $# -ne 1 ]; then
	echo "usage: $0 OUT" >&2
	exit 2
fi
mkdir -p "$1"
out=$(realpath "$1")
cd "$(dirname "$0")/.."

export LC_ALL=C VERSION MAINTAINER SOURCE_DATE_EPOCH ARCH
VERSION=$(sed -n 's/^const sourceVersion = "\(.*\)"$/\1/p' cmd/sockwatch/version.go)
MAINTAINER=${MAINTAINER:-The sockwatch authors <maintainers@users.noreply.github.com>}
if ! SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}; then
	echo "$0: outside of a clone, set SOURCE_DATE_EPOCH to the time of the release, in seconds since 1970" >&2
	exit 1
fi
read -ra arches <<<"${ARCHES:-amd64 arm64}"

# "go build" at a tag takes the version from it: the packages must have the same one.
tags=$(git tag --points-at HEAD 'v[0-9]*' 2>/dev/null || true)
if [ -n "$tags" ] && ! grep -Fqx "v$VERSION" <<<"$tags"; then
	echo "$0: the commit has the tag" $tags", but sourceVersion in cmd/sockwatch/version.go is $VERSION" >&2
	exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main() {
	for arch in "${arches[@]}"; do
		build linux "$arch" "$work/bin/$arch/sockwatch"
	done
	documents
	(cd deploy/nfpm && GOFLAGS="" go build -o "$work/nfpm" tool)
	find "$work" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	for ARCH in "${arches[@]}"; do
		for format in deb rpm; do
			(cd "$work" && ./nfpm package -f nfpm.yaml -p "$format" -t "$out")
		done
	done
	(cd deploy && go run ./image -out "$out/sockwatch-oci.tar" -version "$VERSION" -epoch "$SOURCE_DATE_EPOCH" -files "$work" "${arches[@]}")
}

# build OS ARCH FILE builds the program. The result does not depend on where the source is.
build() {
	GOOS=$1 GOARCH=$2 CGO_ENABLED=0 GOFLAGS="" go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$3" ./cmd/sockwatch
}

# documents prepares the other files of the packages.
documents() {
	cp deploy/package/{nfpm.yaml,sockwatch.toml,copyright,lintian-overrides} deploy/systemd/* LICENSE "$work"
	cp -R deploy/package/{deb,rpm} "$work"
	local script
	for script in deb/postinst rpm/post; do
		cat <(echo '#!/bin/sh') deploy/package/migrate.sh <(echo) "deploy/package/$script" >"$work/$script"
	done
	chmod +x "$work"/deb/*

	build "$(go env GOHOSTOS)" "$(go env GOHOSTARCH)" "$work/host"
	local shell
	for shell in bash zsh fish; do
		"$work/host" completion "$shell" >"$work/completion.$shell"
	done
	compress deploy/man/sockwatch.1 sockwatch.1
	compress deploy/man/sockwatch.toml.5 sockwatch.toml.5
	compress CHANGELOG.md changelog
	third_party >"$work/third-party"
	compress "$work/third-party" third-party
	cat >"$work/changelog.Debian" <<-EOF
		sockwatch (${VERSION/-/\~}-1) unstable; urgency=medium

		  * Release of the sockwatch authors; changelog.gz has the changes.

		 -- $MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
	EOF
	compress "$work/changelog.Debian" changelog.Debian
}

# compress FILE NAME makes NAME.gz of the packages.
compress() { gzip -9n <"$1" >"$work/$2.gz"; }

# third_party prints the licenses of everything that is linked into the program.
third_party() {
	local module version dir files
	echo "The licenses of Go and of the modules that are linked into sockwatch."
	printf '\n======== Go %s\n\n' "$(go env GOVERSION)"
	cat "$(go env GOROOT)/LICENSE"
	shopt -s nullglob nocaseglob
	GOOS=linux CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/sockwatch | sort -u |
		while read -r module version dir; do
			files=("$dir"/{licen[sc]e,copying,notice}*)
			if [ ${#files[@]} -eq 0 ]; then
				echo "$module: no license found" >&2
				exit 1
			fi
			printf '\n======== %s %s\n' "$module" "$version"
			printf '\n%s\n' "$(cat "${files[@]}")"
		done
}

main
