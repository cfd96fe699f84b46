package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// A completionShell completes command lines with the script that the program prints.
type completionShell struct {
	name     string
	bin, dir string
	script   string // its path
}

func newCompletionShell(t *testing.T, name string) *completionShell {
	t.Helper()
	s := &completionShell{name: name, bin: servertest.Binary(t, name), dir: t.TempDir()}
	r := sockwatchRun(nil, "completion", name)
	if r.Code != 0 || r.Stderr != "" {
		t.Fatalf("exit code %d, %s", r.Code, r.Stderr)
	}
	s.script = writeFile(t, s.dir, "_sockwatch", r.Stdout)
	for _, name := range []string{"my file.toml", "other.conf"} {
		writeFile(t, s.dir, name, "")
	}
	if err := os.Mkdir(filepath.Join(s.dir, "my dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a script of the shell in a directory with two files and a directory.
func (s *completionShell) run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir, "XDG_DATA_HOME="+s.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", s.name, args, err, out)
	}
	return string(out)
}

// words returns the words of a completion, sorted.
func words(lines string) []string {
	var all []string
	for line := range strings.Lines(lines) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t") // fish prints a description after it
		if word != "_sockwatch" {                                       // the script itself, a file
			all = append(all, word)
		}
	}
	slices.Sort(all)
	return all
}

func TestBashCompletes(t *testing.T) {
	t.Parallel()
	s := newCompletionShell(t, "bash")
	listFlags := []string{"--exposure", "--help", "--json", "--namespaces", "--port", "--process", "--sort", "--unit", "--user", "--watch", "--wide", "-h"}
	commands := commandNames(commandsOf(newParser().Model))
	slices.Sort(commands)
	tests := []struct {
		words []string // split as bash does, at "=" too; the last word is completed
		want  []string
	}{
		{[]string{"sockwatch", ""}, commands},
		{[]string{"sockwatch", "l"}, []string{"list"}},
		{[]string{"sockwatch", "--c"}, []string{"--config", "--config-directory"}},
		{[]string{"sockwatch", "--config", "m"}, []string{"my dir", "my file.toml"}},
		{[]string{"sockwatch", "--config", "=", "m"}, []string{"my dir", "my file.toml"}},
		{[]string{"sockwatch", "--config", "="}, []string{"my dir", "my file.toml", "other.conf"}},
		{[]string{"sockwatch", "check", "--config-directory", ""}, []string{"my dir"}},
		{[]string{"sockwatch", "--config", "list", ""}, commands}, // the file list
		{[]string{"sockwatch", "list", ""}, listFlags},
		{[]string{"sockwatch", "list", "--wide", "--p"}, []string{"--port", "--process"}},
		{[]string{"sockwatch", "list", "--exposure", "l"}, []string{"link_local", "loopback"}},
		{[]string{"sockwatch", "list", "--sort", "=", "u"}, []string{"unit", "user"}},
		{[]string{"sockwatch", "list", "--port", ""}, nil},
		{[]string{"sockwatch", "completion", ""}, []string{"bash", "fish", "zsh"}},
		{[]string{"sockwatch", "completion", "-"}, []string{"--help", "-h"}},
		{[]string{"sockwatch", "version", "x"}, nil},
	}
	for _, tt := range tests {
		args := append([]string{"--norc", "--noprofile", "-c",
			`source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sockwatch; ((${#COMPREPLY[@]})) && printf '%s\n' "${COMPREPLY[@]}"; complete -p sockwatch >/dev/null`,
			s.script}, tt.words...)
		if diff := cmp.Diff(tt.want, words(s.run(t, args...))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.words, diff)
		}
	}
}

func TestFishCompletes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts fish")
	}
	t.Parallel()
	s := newCompletionShell(t, "fish")
	s.run(t, "--no-execute", s.script)
	commands := commandNames(commandsOf(newParser().Model))
	slices.Sort(commands)
	tests := []struct {
		line string
		want []string
	}{
		{"sockwatch ", commands},
		{"sockwatch l", []string{"list"}},
		{"sockwatch --c", []string{"--config", "--config-directory"}},
		{"sockwatch check --config m", []string{"my dir/", "my file.toml"}},
		{"sockwatch check --config-directory m", []string{"my dir/"}},
		{"sockwatch list --p", []string{"--port", "--process"}},
		{"sockwatch list --exposure l", []string{"link_local", "loopback"}},
		{"sockwatch list --exposure=p", []string{"--exposure=private", "--exposure=public"}},
		{"sockwatch list --port ", nil},
		{"sockwatch completion ", []string{"bash", "fish", "zsh"}},
	}
	for _, tt := range tests {
		got := s.run(t, "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", s.script, tt.line)
		if diff := cmp.Diff(tt.want, words(got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.line, diff)
		}
	}
	var want string // with its description, whose apostrophe fish has to keep
	for _, c := range commandsOf(newParser().Model) {
		for _, f := range c.flags {
			if c.name == "list" && f.name == "namespaces" {
				want = "--namespaces\t" + f.summary() + "\n"
			}
		}
	}
	if got := s.run(t, "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", s.script, "sockwatch list --name"); got != want || !strings.Contains(want, "'") {
		t.Errorf("%q, want %q", got, want)
	}
}

// zsh completes only on a terminal: this types into one of the module zsh/zpty, and reads
// the line after Tab. zsh removes the comma after a class if the next character does not
// begin a class.
func TestZshCompletes(t *testing.T) {
	if testing.Short() {
		t.Skip("zsh and its completions start slowly")
	}
	t.Parallel()
	s := newCompletionShell(t, "zsh")
	s.run(t, "-n", s.script)
	tests := []struct{ typed, want string }{
		{"sockwatch li", "sockwatch list "},
		{"sockwatch --config-d", "sockwatch --config-directory="},
		{"sockwatch check --config=o", "sockwatch check --config=other.conf "},
		{"sockwatch check --config o", "sockwatch check --config other.conf "},
		{"sockwatch list --nam", "sockwatch list --namespaces "},
		{"sockwatch list --exposure=lin", "sockwatch list --exposure=link_local,"},
		{"sockwatch list --exposure=public,lo", "sockwatch list --exposure=public,loopback,"},
		{"sockwatch list --sort ex", "sockwatch list --sort ex"}, // exposure or exe
		{"sockwatch list --sort exp", "sockwatch list --sort exposure "},
		{"sockwatch completion f", "sockwatch completion fish "},
	}
	const script = `
		zmodload zsh/zpty
		zpty shell zsh -f -i
		zpty -w shell "PS1=; PS2=; unsetopt zle_bracketed_paste beep; autoload -Uz compinit; fpath=($1 \$fpath); compinit -u -d $1/dump"
		zpty -w shell "buffer() { print -r -- \"<\$BUFFER>\" >$1/answer; zle kill-buffer }; zle -N buffer; bindkey '^X' buffer; bindkey '^I' complete-word"
		shift
		for typed in "$@"; do
			rm -f answer
			zpty -w -n shell "$typed"$'\t\x18'
			for ((i = 0; i < 1000; i++)); do
				[[ -s answer ]] && break
				sleep 0.02
			done
			cat answer
		done
		zpty -d shell`
	path := writeFile(t, s.dir, "type.zsh", script)
	args := []string{"-f", path, s.dir}
	var want []string
	for _, tt := range tests {
		args = append(args, tt.typed)
		want = append(want, "<"+tt.want+">")
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(s.run(t, args...)), "\n")); diff != "" {
		t.Errorf("typed %q (-want +got):\n%s", args[3:], diff)
	}
}

// The command line accepts every word that a script offers.
func TestCompletionsAreOfThisCommandLine(t *testing.T) {
	for _, c := range commandsOf(newParser().Model) {
		for _, f := range c.flags {
			if f.name == "help" || f.choices == nil {
				continue
			}
			for _, choice := range f.choices {
				if _, err := parse([]string{c.name, fmt.Sprintf("--%s=%s", f.name, choice)}, io.Discard, io.Discard); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
