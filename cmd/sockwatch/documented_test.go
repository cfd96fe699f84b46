package main

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// Every TOML block of the documentation is a configuration that loads
// unchanged.
func TestDocumentedConfigurationsLoad(t *testing.T) {
	block := regexp.MustCompile("(?ms)^ *```toml\n(.*?)^ *```") // those of lists are indented
	count := 0
	for _, path := range markdownFiles(t) {
		for _, m := range block.FindAllStringSubmatch(readFile(t, path), -1) {
			count++
			if _, err := load(m[1], map[string]string{"INFLUX_TOKEN": "x", "INFLUX_PASSWORD": "x", "CREDENTIALS_DIRECTORY": "/c"}); err != nil {
				t.Errorf("%s:\n%s%v", path, m[1], err)
			}
		}
	}
	t.Logf("%d blocks", count)
}

// A running program answers the commands of docs/page.md. What is public differs from machine to
// machine; on loopback, the program finds itself.
func TestDocumentedRequestsOfThePage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program, curl and jq")
	}
	servertest.Binary(t, "jq")
	servertest.Binary(t, "curl")
	block := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindStringSubmatch(readFile(t, "docs/page.md"))
	if block == nil {
		t.Fatal("docs/page.md has no commands")
	}
	_, address, _ := startOnExample(t)
	script := strings.ReplaceAll(block[1], "localhost:8088", address)
	script = strings.ReplaceAll(script, "curl -s ", "curl -sS --fail ")
	if strings.Count(script, address) != 2 {
		t.Fatalf("docs/page.md has other requests:\n%s", script)
	}
	sh := func(script string) string {
		output, err := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, output)
		}
		return string(output)
	}
	if out := sh(script); !strings.HasSuffix(out, "]\n") {
		t.Errorf("%q, want that the events are a list", out)
	}
	_, port, _ := net.SplitHostPort(address)
	want := port + " " + filepath.Base(os.Args[0])
	if out := sh(strings.Replace(script, "exposure:public", "exposure:loopback", 1)); !strings.Contains(out, want) {
		t.Errorf("the listeners are %q, want %q among them", out, want)
	}
}

// A TOML block with the word "rules" after its language is a rule file.
func TestDocumentedRuleFilesLoad(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```toml rules\n(.*?)^```")
	count := 0
	for _, path := range markdownFiles(t) {
		for _, m := range block.FindAllStringSubmatch(readFile(t, path), -1) {
			count++
			file := filepath.Join(t.TempDir(), "rules.toml")
			if err := os.WriteFile(file, []byte(m[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := load("[[inputs.tcp_listen]]\nexpect_file = '"+file+"'\n[[outputs.stdout]]\n", nil); err != nil {
				t.Errorf("%s:\n%s%v", path, m[1], err)
			}
		}
	}
	if count == 0 {
		t.Error("no rule file found")
	}
}

// Every relative link of the documentation leads to a file of the repository, and to an
// existing heading if it names one.
func TestDocumentedLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	count := 0
	for _, path := range markdownFiles(t) {
		for _, m := range link.FindAllStringSubmatch(withoutBlocks(readFile(t, path)), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			count++
			target, heading, _ := strings.Cut(m[1], "#")
			file := path
			if target != "" {
				file = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			} else if heading != "" && !slices.Contains(anchors(readFile(t, file)), heading) {
				t.Errorf("%s links to %s, and that file has no such heading", path, m[1])
			}
		}
	}
	if count == 0 {
		t.Error("no links found")
	}
}

// Each row of docs/faults.md names a test, and every test that it names exists. No test is
// named after a code.
func TestDocumentedFaults(t *testing.T) {
	document := readFile(t, "docs/faults.md")
	named := regexp.MustCompile(`(?m)^func (Test\w*)\(`)
	code := regexp.MustCompile(`^Test[A-Z][0-9]+([A-Z]|$)`)
	tests := make(map[string]bool)
	walkFiles(t, func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		for _, m := range named.FindAllStringSubmatch(readFile(t, path), -1) {
			tests[m[1]] = true
			if code.MatchString(m[1]) {
				t.Errorf("%s: %s is named after a code", path, m[1])
			}
		}
	})
	test := regexp.MustCompile("`(Test\\w+)`")
	for _, m := range test.FindAllStringSubmatch(document, -1) {
		if !tests[m[1]] {
			t.Errorf("the document names %s, which does not exist", m[1])
		}
	}
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "|-") && !strings.HasPrefix(line, "| fault |") && !test.MatchString(line) {
			t.Errorf("no test shows %s", line)
		}
	}
}

// anchors returns the anchors that GitHub gives to the headings of a Markdown text.
func anchors(text string) []string {
	var all []string
	for _, m := range regexp.MustCompile("(?m)^#+ (.*)$").FindAllStringSubmatch(withoutBlocks(text), -1) {
		heading := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(m[1])), " ", "-")
		all = append(all, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(heading, ""))
	}
	return all
}

// withoutBlocks returns a Markdown text without its fenced blocks.
func withoutBlocks(text string) string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
}

// markdownFiles returns the path of every Markdown file of the repository.
func markdownFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	walkFiles(t, func(path string) {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
	})
	return files
}

// walkFiles calls f with the path of every file of the repository, except in hidden
// folders and in those that npm fills.
func walkFiles(t *testing.T, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.Type().IsRegular():
			f(rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
