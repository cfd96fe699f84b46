package main

import (
	"path/filepath"
	"regexp"
	"testing"
)

// Every TOML block of the documentation is a configuration that loads as it is
// printed.
func TestDocumentedConfigurationsLoad(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```toml\n(.*?)^```")
	count := 0
	for _, path := range markdownFiles(t) {
		for _, m := range block.FindAllStringSubmatch(readFile(t, path), -1) {
			count++
			if _, err := load(m[1], map[string]string{"INFLUX_TOKEN": "x", "INFLUX_PASSWORD": "x"}); err != nil {
				t.Errorf("%s:\n%s%v", path, m[1], err)
			}
		}
	}
	t.Logf("%d blocks", count)
}

func markdownFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*.md", "inputs/*/*.md", "outputs/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, rel)
		}
	}
	return files
}
