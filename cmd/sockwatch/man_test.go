package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sockwatch/agent"
	"sockwatch/agent/plugin/plugintest/servertest"
)

// manPages are the pages in deploy/man and their descriptions for whatis(1).
var manPages = map[string]string{
	"sockwatch.1":      `"sockwatch - show and report the listening TCP sockets of this host and their owners"`,
	"sockwatch.toml.5": `"sockwatch.toml - configuration of sockwatch"`,
}

// formatted returns a man page as man(1) prints it, and the warnings.
func formatted(t *testing.T, path string) (text, warnings string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, servertest.Binary(t, "man"), "--warnings=w", "-E", "UTF-8", "-P", "cat", "-l", path)
	cmd.Env = append(cmd.Environ(), "MANWIDTH=1000", "LC_ALL=C.UTF-8", "MANROFFOPT=-c")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	plain := regexp.MustCompile(`.\x08`).ReplaceAllString(stdout.String(), "")
	return plain, stderr.String()
}

// shows reports whether a page has these words, ignoring line breaks.
func shows(page, words string) bool {
	oneLine := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	return strings.Contains(oneLine(page), oneLine(words))
}

func TestManPagesAreClean(t *testing.T) {
	if testing.Short() {
		t.Skip("starts man and groff")
	}
	t.Parallel()
	groff, lexgrog := servertest.Binary(t, "groff"), servertest.Binary(t, "lexgrog")
	for page, whatis := range manPages {
		path := filepath.Join(root, "deploy/man", page)
		if _, warnings := formatted(t, path); warnings != "" {
			t.Errorf("man --warnings %s: %s", page, warnings)
		}
		if out, err := exec.CommandContext(t.Context(), groff, "-ww", "-man", "-Tutf8", "-z", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("groff -ww %s: %v: %s", page, err, out)
		}
		if out, err := exec.CommandContext(t.Context(), lexgrog, path).CombinedOutput(); err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), ": "+whatis) {
			t.Errorf("lexgrog %s: %v: %s", page, err, out)
		}
	}
}

// The page of the program shows every command with its flags and examples, typed
// literally.
func TestManPageShowsTheCommandLine(t *testing.T) {
	t.Parallel()
	text, _ := formatted(t, filepath.Join(root, "deploy/man/sockwatch.1"))
	for _, c := range commandsOf(newParser().Model) {
		want := append(examples(&c), c.summary())
		for _, f := range c.flags {
			want = append(want, "--"+f.name, f.summary())
		}
		for _, w := range want {
			if !shows(text, w) {
				t.Errorf("%s: the page does not show %q", c.name, w)
			}
		}
	}
}

// The page of the configuration shows every option with its default, and an example
// that loads.
func TestManPageShowsEveryOption(t *testing.T) {
	if testing.Short() {
		t.Skip("starts man")
	}
	t.Parallel()
	text, _ := formatted(t, filepath.Join(root, "deploy/man/sockwatch.toml.5"))
	defaults := agent.DefaultOptions()
	all := optionsOf(t, &defaults)
	for _, p := range plugins() {
		_, common := exampleCommon(p)
		all = slices.Concat(all, optionsOf(t, common), optionsOf(t, p.Defaults()))
	}
	for _, o := range all {
		want := []string{o.name + " = " + inlineTOML(t, o.value), strings.Join(o.doc, " ")}
		if o.value.Kind() == reflect.Slice && o.value.Type().Elem().Kind() == reflect.Struct { // tables, none by default
			want[0] = o.name
		}
		for _, w := range want {
			if !shows(text, w) {
				t.Errorf("the page does not show %q", w)
			}
		}
	}
	if !shows(text, manExample) {
		t.Error("the page does not show its example")
	}
	loadText(t, strings.Replace(manExample, "/etc/sockwatch/token", writeFile(t, t.TempDir(), "token", "x"), 1))
}
