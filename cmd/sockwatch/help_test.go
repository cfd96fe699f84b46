package main

import (
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"

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

// Every command's help has an example, in the language of the shell, and each is a
// command line that the program takes.
func TestExamplesOfTheHelp(t *testing.T) {
	bash := servertest.Binary(t, "bash")
	for _, c := range commandsOf(newParser().Model) {
		lines := examples(&c)
		if len(lines) == 0 {
			t.Errorf("the help of %s has no example", c.name)
			continue
		}
		for _, line := range lines {
			// The shell splits the line; the program is a function that prints its words.
			script := `sockwatch() { printf '%s\n' "$@"; }; ` + regexp.MustCompile(`^source <\((.*)\)$|>.*$`).ReplaceAllString(line, "$1")
			out, err := exec.CommandContext(t.Context(), bash, "-c", script).Output()
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			var args []string
			if text := strings.TrimSuffix(string(out), "\n"); text != "" {
				args = strings.Split(text, "\n")
			}
			command, err := parse(args, io.Discard, io.Discard)
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
