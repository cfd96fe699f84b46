package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestVersionOfBuild(t *testing.T) {
	for _, test := range []struct{ name, module, want string }{
		{"no build information", "", sourceVersion},
		{"a build without a commit", "(devel)", sourceVersion},
		{"a tag", "v1.2.3", "1.2.3"},
		{"a tag of a release candidate", "v1.2.3-rc.1", "1.2.3-rc.1"},
		{"a tag with changes", "v1.2.3+dirty", "1.2.3+dirty"},
		{"a commit before the first tag", "v0.0.0-20261126121000-0123456789ab", sourceVersion + "+0123456789ab"},
		{"a commit with changes", "v0.0.0-20261126121000-0123456789ab+dirty", sourceVersion + "+0123456789ab.dirty"},
		{"a commit after a tag", "v1.2.4-0.20261126121000-0123456789ab", sourceVersion + "+0123456789ab"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := versionOf(test.module); got != test.want {
				t.Errorf("versionOf(%q) = %q, want %q", test.module, got, test.want)
			}
		})
	}
}

// A development version has a section [Unreleased] at the top of the changelog, and a
// release its own.
func TestVersionIsInTheChangelog(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^## \[([^\]]+)\]`).FindStringSubmatch(readFile(t, "CHANGELOG.md"))
	if heading == nil {
		t.Fatal("CHANGELOG.md has no section of a version")
	}
	want := sourceVersion
	if strings.HasSuffix(sourceVersion, "-dev") {
		want = "Unreleased"
	}
	if heading[1] != want {
		t.Errorf("version %s: the first section of CHANGELOG.md is [%s], want [%s]", sourceVersion, heading[1], want)
	}
}
