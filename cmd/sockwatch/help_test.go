package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// examples returns the command lines among the indented lines of a command's help.
func examples(c *commandDoc) []string {
	var all []string
	for line := range strings.Lines(c.detail) {
		if example, ok := strings.CutPrefix(line, "    "); ok {
			all = append(all, strings.TrimSpace(example))
		}
	}
	return all
}

// parseExample parses a command line as a shell does: it runs the line with a function
// in place of the program, which prints its words.
func parseExample(t *testing.T, line string) (*kong.Context, error) {
	t.Helper()
	bash := servertest.Binary(t, "bash")
	line = regexp.MustCompile(`^source <\((.*)\)$|>.*$`).ReplaceAllString(line, "$1")
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, bash, "-c", `sockwatch() { printf '%s\n' "$@"; }; `+line).Output()
	if err != nil {
		return nil, err
	}
	var args []string
	if text := strings.TrimSuffix(string(out), "\n"); text != "" {
		args = strings.Split(text, "\n")
	}
	return parse(args, io.Discard, io.Discard)
}

// Every command's help has an example, and the program accepts each
// example.
func TestExamplesOfTheHelp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program several times")
	}
	for _, c := range commandsOf(newParser().Model) {
		lines := examples(&c)
		if len(lines) == 0 {
			t.Errorf("the help of %s has no example", c.name)
			continue
		}
		for _, line := range lines {
			command, err := parseExample(t, line)
			if err != nil {
				t.Errorf("%s: %v", line, err)
			} else if got := command.Selected().Name; got != c.name {
				t.Errorf("%s is an example of %s in the help of %s", line, got, c.name)
			}
		}
		if r := sockwatchRun(nil, c.name, "--help"); r.Code != 0 || !strings.Contains(r.Stdout, lines[0]) {
			t.Errorf("%s --help: exit code %d, without its example:\n%s", c.name, r.Code, r.Stdout)
		}
	}
}

// The program accepts every command line in the documentation. Those of list and execd end
// by themselves and change nothing, so they are run.
func TestDocumentedCommandLines(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the program many times")
	}
	block := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	line := regexp.MustCompile(`(?m)^(?:echo \| )?sockwatch .*$`)
	count := 0
	for _, path := range markdownFiles(t) {
		for _, m := range block.FindAllStringSubmatch(readFile(t, path), -1) {
			for _, text := range line.FindAllString(m[1], -1) {
				count++
				command, err := parseExample(t, text)
				if err != nil {
					t.Errorf("%s: %s: %v", path, text, err)
					continue
				}
				switch list, _ := command.Selected().Target.Addr().Interface().(*listCommand); {
				case list != nil && list.Watch == 0:
					var out strings.Builder
					p := &program{plugins: plugins(), getenv: os.LookupEnv, stdout: &dataWriter{Writer: &out}, stderr: io.Discard, log: newLogSwitch(io.Discard)}
					if err := command.Run(p); err != nil {
						t.Errorf("%s: %s: %v", path, text, err)
					}
				case strings.HasPrefix(text, "echo"):
					if r := execd("\n"); r.Code != 0 {
						t.Errorf("%s: %s: %s", path, text, r.Stderr)
					}
				}
			}
		}
	}
	if count < 5 {
		t.Errorf("%d command lines found", count)
	}
}
