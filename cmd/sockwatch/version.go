package main

import (
	"regexp"
	"runtime/debug"
	"strings"
)

// sourceVersion is the version of this source: a release, or the next release with
// "-dev". CHANGELOG.md has the same version.
const sourceVersion = "0.2.0-dev"

// version returns the version of this build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return sourceVersion
	}
	return versionOf(info.Main.Version)
}

// pseudo matches Go's pseudo-version of a commit without a tag, such as
// v0.0.0-20261126121000-0123456789ab.
var pseudo = regexp.MustCompile(`^v.*[.-]\d{14}-([0-9a-f]{12})(\+dirty)?$`)

// versionOf returns the version of a build from the version of its main module: the tag
// if it has one, else sourceVersion, with the commit if that is known.
func versionOf(module string) string {
	if m := pseudo.FindStringSubmatch(module); m != nil {
		return sourceVersion + "+" + m[1] + strings.Replace(m[2], "+", ".", 1)
	}
	if tag, ok := strings.CutPrefix(module, "v"); ok {
		return tag
	}
	return sourceVersion
}
